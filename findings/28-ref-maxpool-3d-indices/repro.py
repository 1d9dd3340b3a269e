"""MaxPool over three axes returns indices beyond the tensor.

MaxPool, opset 22, on onnx.reference 1.23.2. Needs numpy and onnx alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: So the values in indices are in [0, N x C x D1 x ... x Dn).
The largest element of 27 is the last one, index 26.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array(
        [
            [
                [
                    [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]],
                    [[9.0, 10.0, 11.0], [12.0, 13.0, 14.0], [15.0, 16.0, 17.0]],
                    [[18.0, 19.0, 20.0], [21.0, 22.0, 23.0], [24.0, 25.0, 26.0]],
                ]
            ]
        ],
        np.float32,
    ).reshape((1, 1, 3, 3, 3)),
}
EXPECTED = {
    "y0": np.array([[[[[26.0]]]]], np.float32).reshape((1, 1, 1, 1, 1)),
    "y1": np.array([[[[[26]]]]], np.int64).reshape((1, 1, 1, 1, 1)),
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
