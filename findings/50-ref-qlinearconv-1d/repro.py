"""QLinearConv over one axis returns a tensor of rank 4.

QLinearConv, opset 10, on onnx.reference 1.23.2. Needs numpy and onnx alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: Note that this is for the 2D image. Otherwise the size is (N x C x D1 x D2 ... x Dn).
The image times 1 and times 2, in a tensor of rank 3. It is the scale per channel that adds an axis.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array([[[2, 4]]], np.uint8).reshape((1, 1, 2)),
    "x1": np.array(1.0, np.float32).reshape(()),
    "x2": np.array(0, np.uint8).reshape(()),
    "x3": np.array([[[1]], [[2]]], np.uint8).reshape((2, 1, 1)),
    "x4": np.array([1.0, 1.0], np.float32).reshape((2,)),
    "x5": np.array([0, 0], np.uint8).reshape((2,)),
    "x6": np.array(1.0, np.float32).reshape(()),
    "x7": np.array(0, np.uint8).reshape(()),
}
EXPECTED = {
    "y0": np.array([[[2, 4], [4, 8]]], np.uint8).reshape((1, 2, 2)),
}


def load():
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(MODEL)

    def run(feeds):
        return dict(zip(evaluator.output_names, evaluator.run(None, feeds)))

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
