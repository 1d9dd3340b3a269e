# The words of the house. Each works on a fresh clone with Python 3.11 (or newer) and make, and fetches only packages.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
# weights of `make demo`: a torchvision or timm ResNet-18 checkpoint; seeded random ones without
WEIGHTS ?=
# processes that share the files of tests between them, each with one thread for products; each may need 3 GB
JOBS ?= 2
PYTEST = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder
# the first interpreter that runs and is new enough, looked for once and only if one is needed
PYTHON ?= $(eval PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done))$(PYTHON)

.DEFAULT_GOAL := help
.PHONY: help demo examples test test-slow lint types bench truth parity calibration wheel clean

help:
	@echo 'make demo       export ResNet-18, check it on a photograph, time it; writes $(DEMO)/report.html'
	@echo 'make test       run the tests          make test-slow   run also those that take minutes'
	@echo 'make lint       ruff                   make types       pyright'
	@echo 'make examples   train small networks, ask them in ONNX Runtime; writes the figures of docs/examples.md'
	@echo 'make bench      the speed figures of docs/benchmarks.md, measured here'
	@echo 'make calibration  how often the verdict is wrong: docs/calibration.md, counted here'
	@echo 'make truth      docs/truth.md and docs/disagreements.md: what the kernels were compared with'
	@echo 'make wheel      dist/*.whl             make clean       remove what the others made'

$(STAMP): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'onnx-arch needs Python 3.11 or newer; set PYTHON=/path/to/python3.11' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'onnx-arch needs Python 3.11 or newer; $(PYTHON) is older, set PYTHON=/path/to/python3.11' >&2; exit 2; }
	@echo 'installing into $(VENV) (torch is large: minutes on a slow line)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-build-isolation -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@BIN='$(BIN)' DEMO='$(DEMO)' WEIGHTS='$(WEIGHTS)' sh docs/demo.sh

test: $(STAMP)
	$(PYTEST) -m 'not slow'

test-slow: $(STAMP)
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

examples: $(STAMP)
	for example in examples/*.py; do grep -q '^def main' $$example || continue; \
		$(BIN)/python $$example --document || exit 1; done

bench: $(STAMP)
	$(BIN)/python -m onnx_arch.benchmarks.speed

truth: $(STAMP)
	$(BIN)/python -m tests.truth docs

parity: $(STAMP)
	$(BIN)/python -m tests.truth.parity

# an interrupted run goes on where it was; `make clean` forgets it
calibration: $(STAMP)
	$(BIN)/python -m onnx_arch.conformance.calibration --resume build/calibration --write docs/calibration.md

wheel: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation
	rm -rf build

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
