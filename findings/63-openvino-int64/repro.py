"""Integers of 64 bits are computed in 32.

Add, opset 14, on openvino 2026.4.0. Needs numpy and openvino alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: Performs element-wise binary addition (...) Constrain input and output types to all numeric tensors.
2^33 + 1 fits into the type of the tensor thirty bits over. 1 comes back: the upper half of every number is cut off, without a word.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array([8589934592, 2147483648], np.int64).reshape((2,)),
    "x1": np.array([1, 0], np.int64).reshape((2,)),
}
EXPECTED = {
    "y0": np.array([8589934593, 2147483648], np.int64).reshape((2,)),
}


def load():
    import openvino

    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(MODEL, "CPU", config)
    names = [min(output.get_names()) for output in compiled.outputs]

    def run(feeds):
        values = compiled(list(feeds.values()))
        return {name: np.array(values[i]) for i, name in enumerate(names)}

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
