"""Attention returns the lowest finite number for masked scores.

Attention, opset 24, on onnxruntime 1.32.0. Needs numpy and onnxruntime alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: a boolean `attn_mask` intersects the allowed set (its disallowed positions contribute `-inf` to the bias) (...) If set to `2`, qk_matmul_output includes the attention mask and softcap (if provided)
A score plus -inf is -inf; -3.4028235e38 is returned.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array([[[[1.0, 1.0], [1.0, 1.0]]]], np.float32).reshape((1, 1, 2, 2)),
    "x1": np.array([[[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]]], np.float32).reshape((1, 1, 3, 2)),
    "x2": np.array([[[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]]], np.float32).reshape((1, 1, 3, 2)),
    "x3": np.array([[True, True, False], [True, True, False]], np.bool_).reshape((2, 3)),
}
EXPECTED = {
    "y0": np.array([[[[1.0, 1.0], [1.0, 1.0]]]], np.float32).reshape((1, 1, 2, 2)),
    "y3": np.array(
        [[[[1.4142135381698608, 1.4142135381698608, -np.inf], [1.4142135381698608, 1.4142135381698608, -np.inf]]]],
        np.float32,
    ).reshape((1, 1, 2, 3)),
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
    return np.allclose(actual.astype(float), expected.astype(float), rtol=1e-05, atol=1e-05, equal_nan=True)


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
