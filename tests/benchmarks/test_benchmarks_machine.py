"""The machine as far as speed depends on it."""

from __future__ import annotations

import json
import os
import platform

from onnx_arch.benchmarks import machine
from onnx_arch.runtimes import environment


def test_description_is_json_and_names_no_host_and_no_folder() -> None:
    text = json.dumps(machine.describe(), allow_nan=False)
    assert platform.node() not in text
    assert os.getcwd() not in text


def test_description_adds_the_state_of_the_machine(monkeypatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.234, 0.0, 0.0))
    described = machine.describe()
    assert described["load_1min"] == 1.23
    assert environment.describe().items() <= described.items()


def test_threads_are_the_physical_cores_but_no_more_than_allowed(monkeypatch) -> None:
    monkeypatch.setattr(machine.environment, "cores", lambda: 3)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 16)
    assert machine.usable_cores() == 3
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 2)
    assert machine.usable_cores() == 2
    monkeypatch.setattr("psutil.cpu_count", lambda logical: None)
    assert machine.usable_cores() == 3
