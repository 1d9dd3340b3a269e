#!/bin/sh
# One walk through onnx-arch: export ResNet-18, check it on a photograph, time it, write one page.
# Called by `make demo`, which sets BIN (the environment's programs), DEMO (where to write) and WEIGHTS (or nothing).
set -eu
: "${BIN:?}" "${DEMO:?}"

photograph=$("$BIN/python" -c '
import importlib.util, pathlib
package = importlib.util.find_spec("sklearn")
print(pathlib.Path(package.origin).parent / "datasets" / "images" / "china.jpg")')

rm -rf "$DEMO"
mkdir -p "$DEMO"
if [ -n "${WEIGHTS:-}" ]; then
    set -- --weights "$WEIGHTS"
else
    echo "random weights (seed 0); WEIGHTS=FILE takes a trained checkpoint"
    set -- --seed 0
fi
"$BIN/onnx-arch" export resnet18 -o "$DEMO" "$@"

status=0
"$BIN/onnx-arch" check "$DEMO/resnet18" --image "$photograph" --json "$DEMO/check.jsonl" || status=$?
# 1: something was found, and the page shows it; anything else: there is nothing to show
[ "$status" -le 1 ] || exit "$status"

"$BIN/onnx-arch" bench "$DEMO/resnet18" --against torch "$@" --json "$DEMO/bench.jsonl"
"$BIN/onnx-arch" report "$DEMO/check.jsonl" "$DEMO/bench.jsonl" -o "$DEMO/report.html" --quiet

[ "$status" -eq 0 ] || echo "the check found something wrong: see the page" >&2
echo "report: $(pwd)/$DEMO/report.html"
exit "$status"
