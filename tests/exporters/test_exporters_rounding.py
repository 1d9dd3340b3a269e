"""How far rounding may move a graph: what is moved, and what never is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

from onnx_arch.exporters.rounding import rounding_spread, translation_spread
from onnx_arch.graphs.evaluation import evaluate_model
from onnx_arch.graphs.loading import load_model

COUNTED = """
<ir_version: 10, opset_import: ["" : 20]>
counted (float16[N, 3] x, float limit) => (float16[N, 6] y)
<float16[1] gain = {11878}, float start = {0}, float delta = {1}, float[2] scales = {1, 2}>
{
    positions = Range (start, limit, delta)
    narrow = Cast <to = 10> (positions)
    scaled = Mul (x, gain)
    added = Add (scaled, narrow)
    y = Resize (added, , scales)
}
"""


def test_constants_of_a_narrow_type_move_and_those_that_count_do_not(tmp_path):
    """A step of 1 − 2⁻²⁴ would count four positions where there are three, and such a scale lose a row."""
    onnx.save(onnx.parser.parse_model(COUNTED), tmp_path / "model.onnx")
    model = load_model(tmp_path / "model.onnx")
    feeds = {"x": np.full((2, 3), 1.5, np.float16), "limit": np.asarray(3, np.float32)}
    clean = evaluate_model(model, feeds)
    rounding = rounding_spread(model, feeds, clean)
    moved = translation_spread(model, feeds, clean, frozenset({"gain", "start", "delta", "scales"}), rounding)
    still = translation_spread(model, feeds, clean, frozenset(), rounding)
    assert moved["y"].shape == (2, 6)
    assert (moved["y"] > still["y"]).all()
    assert (moved["y"] < 0.15 * 2.0**-11).all()
