"""QLinearAdd refuses to do without its optional zero points.

com.microsoft.QLinearAdd, opset 17, on onnxruntime 1.32.0. Needs numpy and onnxruntime alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: Input A zero point. Default value is 0 if it's not specified.
With scales of 1 and zero points of 0 the bytes are added. Input data type does not match the expected data type: the inference of types takes an absent zero point for one of another type.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array([[1, 2]], np.uint8).reshape((1, 2)),
    "x3": np.array([[3, 4]], np.uint8).reshape((1, 2)),
}
EXPECTED = {
    "y0": np.array([[4, 6]], np.uint8).reshape((1, 2)),
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
