"""Slice backward with end 2147483647 goes on to the beginning of the axis.

Slice, opset 13, on onnxruntime 1.32.0. Needs numpy and onnxruntime alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: for negative stepping it is clamped to `[-1, dims[axes[i]]-1]` (...) it is recommended to pass in `INT_MAX` when slicing forward and 'INT_MIN' when slicing backward
The end is clamped to 2; from 0 backward to 2 there is nothing, as in x[0:2147483647:-1]. One element is returned: the largest int32 is taken for the beginning of the axis, in an int64 tensor too.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array([1.0, 2.0, 3.0], np.float32).reshape((3,)),
    "x1": np.array([0], np.int64).reshape((1,)),
    "x2": np.array([2147483647], np.int64).reshape((1,)),
    "x3": np.array([0], np.int64).reshape((1,)),
    "x4": np.array([-1], np.int64).reshape((1,)),
}
EXPECTED = {
    "y0": np.array([], np.float32).reshape((0,)),
}


def load():
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feeds):
        return dict(zip(names, session.run(None, feeds)))

    return run


def same(actual, expected):
    actual = np.asarray(actual)
    text = expected.dtype.kind in "OU"
    if actual.shape != expected.shape or (not text and actual.dtype != expected.dtype):
        return False
    if text or expected.dtype.kind not in "f":
        return bool(np.all(actual.astype(str) == expected.astype(str)))
    return np.allclose(actual.astype(float), expected.astype(float), rtol=0, atol=0, equal_nan=True)


def main():
    try:
        run = load()
        outputs = run(FEEDS)
    except Exception as error:  # whatever it is: the call is valid
        print("raised:", " ".join(str(error).split())[:300])
        return 1
    wrong = 0
    for name, expected in EXPECTED.items():
        right = same(outputs[name], expected)
        wrong += not right
        print(name, "right" if right else "WRONG")
        print("  returned", np.asarray(outputs[name]).dtype, np.asarray(outputs[name]).tolist())
        print("  expected", expected.dtype, expected.tolist())
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
