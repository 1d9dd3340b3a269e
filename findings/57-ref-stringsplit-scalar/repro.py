"""StringSplit of a scalar fails.

StringSplit, opset 20, on onnx.reference 1.23.2. Needs numpy and onnx alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: This tensor has one additional rank compared to the input tensor
Rank 0 gives rank 1.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array("a b", object).reshape(()),
}
EXPECTED = {
    "y0": np.array(["a", "b"], object).reshape((2,)),
    "y1": np.array(2, np.int64).reshape(()),
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
