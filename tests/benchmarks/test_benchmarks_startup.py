"""Start-up times: what is started, and what the table says of known times."""

from __future__ import annotations

import subprocess

import pytest

from onnx_arch.benchmarks.startup import COMMANDS, Startup, measure, table, time_process

SLEEP = "import time; time.sleep(0.2)"


def test_time_process_sleep_is_part_of_the_time():
    assert 0.2 < time_process(["-c", SLEEP]) < 20


def test_time_process_command_fails_raises_instead_of_a_time():
    with pytest.raises(subprocess.CalledProcessError):
        time_process(["-c", "raise SystemExit(2)"])


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_measured_are_commands_that_succeed(name):
    assert time_process(COMMANDS[name]) > 0


def test_measure_gives_every_command_its_samples_and_one_yardstick():
    results = measure({"nothing": ("-c", "pass"), "sleep": ("-c", SLEEP)}, rounds=2)
    assert [result.name for result in results] == ["nothing", "sleep"]
    assert [len(result.samples_s) for result in results] == [2, 2]
    assert results[0].yardstick_s == results[1].yardstick_s
    assert min(results[1].samples_s) > 0.2


def test_table_known_times_gives_median_ratio_and_interval():
    result = Startup("onnx-arch list", (0.15,) * 6 + (0.9,), (0.1,) * 7)
    line = table([result]).splitlines()[-1]
    assert line == "| `onnx-arch list` | 150 ms | 1.50 x [1.50, 1.50] | 2 x |"


def test_table_few_rounds_gives_no_interval():
    line = table([Startup("onnx-arch list", (0.3, 0.3), (0.1, 0.1))]).splitlines()[-1]
    assert line == "| `onnx-arch list` | 300 ms | 3.00 x | 2 x |"
