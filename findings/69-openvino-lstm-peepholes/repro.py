"""LSTM ignores its peepholes.

LSTM, opset 14, on openvino 2026.4.0. Needs numpy and openvino alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: * it = f(Xt*(Wi^T) + Ht-1*(Ri^T) + Pi (.) Ct-1 + Wbi + Rbi) * ft = f(Xt*(Wf^T) + Ht-1*(Rf^T) + Pf (.) Ct-1 + Wbf + Rbf)
With X and H 0, C 1 and P 9 the forget gate is sigmoid(9) = 0.99988, and so is C. 0.5 is returned, sigmoid(0): P is not read.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array([[[0.0]]], np.float32).reshape((1, 1, 1)),
    "x1": np.array([[[1.0], [1.0], [1.0], [1.0]]], np.float32).reshape((1, 4, 1)),
    "x2": np.array([[[1.0], [1.0], [1.0], [1.0]]], np.float32).reshape((1, 4, 1)),
    "x5": np.array([[[0.0]]], np.float32).reshape((1, 1, 1)),
    "x6": np.array([[[1.0]]], np.float32).reshape((1, 1, 1)),
    "x7": np.array([[9.0, 9.0, 9.0]], np.float32).reshape((1, 3)),
}
EXPECTED = {
    "y0": np.array([[[[0.7614482641220093]]]], np.float32).reshape((1, 1, 1, 1)),
    "y1": np.array([[[0.7614482641220093]]], np.float32).reshape((1, 1, 1)),
    "y2": np.array([[[0.9998766183853149]]], np.float32).reshape((1, 1, 1)),
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
