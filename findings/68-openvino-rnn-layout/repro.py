"""RNN ignores layout 1: batch and time change places.

RNN, opset 14, on openvino 2026.4.0. Needs numpy and openvino alone: python repro.py
The exit status is 0 once the runtime is right.

The spec: layout: (...) If 1, the following shapes are expected: X.shape = [batch_size, seq_length, input_size], Y.shape = [batch_size, seq_length, num_directions, hidden_size], initial_h.shape = Y_h.shape = [batch_size, num_directions, hidden_size].
H = relu(x + H): the first sequence 1, 2 gives 1, 3; the second 3, 4 gives 3, 7. It is computed, and shaped, as if the sequences were 1, 3 and 2, 4.
"""

import sys
from pathlib import Path

import numpy as np

MODEL = str(Path(__file__).with_name("model.onnx"))
FEEDS = {
    "x0": np.array([[[1.0], [2.0]], [[3.0], [4.0]]], np.float32).reshape((2, 2, 1)),
    "x1": np.array([[[1.0]]], np.float32).reshape((1, 1, 1)),
    "x2": np.array([[[1.0]]], np.float32).reshape((1, 1, 1)),
}
EXPECTED = {
    "y0": np.array([[[[1.0]], [[3.0]]], [[[3.0]], [[7.0]]]], np.float32).reshape((2, 2, 1, 1)),
    "y1": np.array([[[3.0]], [[7.0]]], np.float32).reshape((2, 1, 1)),
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
