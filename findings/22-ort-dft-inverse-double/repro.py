"""The inverse DFT of float64 divides by N with the precision of float32.

DFT, opset 20, on onnxruntime 1.32.0. Needs numpy and onnxruntime alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: x[m, n] = \\frac{1}{N} \\sum_{k=0}^{N-1} e^{2 \\pi j \\frac{k n}{N} } y[m, k] (...) Constrain input and output types to float tensors.
The inverse transform of a single 1 is e^{2πjn/3} / 3. It comes back times 3 · float32(1/3): eight right digits. The forward transform of the same runtime has sixteen.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array([[[0.0], [1.0], [0.0]]], np.float64).reshape((1, 3, 1)),
}
EXPECTED = {
    "y0": np.array(
        [
            [
                [0.3333333333333333, 0.0],
                [-0.16666666666666666, 0.28867513459481287],
                [-0.16666666666666666, -0.28867513459481287],
            ]
        ],
        np.float64,
    ).reshape((1, 3, 2)),
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
    return np.allclose(actual.astype(float), expected.astype(float), rtol=1e-12, atol=1e-12, equal_nan=True)


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
