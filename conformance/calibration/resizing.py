"""Resize and GridSample in float32."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...operators.scale import Array
from .case import Case, Family, Outputs, Variant, faults
from .data import KINDS, tensor
from .narrow import NARROW
from .tampering import tampered

F = np.float32


@dataclass(frozen=True)
class Flaws:
    """What a faulty resampling does differently.

    Attributes:
        coordinates: another coordinate_transformation_mode.
        nearest: another nearest_mode.
        mode: another interpolation.
        cubic: another coefficient of the cubic kernel.
        outside: exclude_outside turned round.
        axes: scales of the two axes exchanged.
        shift: coordinates off by so much.
        weights: in a narrow type.
        one_axis: interpolated along the last axis only.
        corners: align_corners turned round.
        padding: another padding_mode.
        exchanged: x and y of the grid exchanged.
        flipped: weights of the two neighbours exchanged.
    """

    coordinates: str = ""
    nearest: str = ""
    mode: str = ""
    cubic: float | None = None
    outside: bool = False
    axes: bool = False
    shift: float = 0.0
    weights: str = ""
    one_axis: bool = False
    corners: bool = False
    padding: str = ""
    exchanged: bool = False
    flipped: bool = False


RIGHT = Flaws()


def coordinates(out: int, size: int, scale: float, mode: str) -> Array:
    """Of every output in the input, float32."""
    i = np.arange(out, dtype=F)
    if mode == "align_corners":
        return i * F((size - 1) / (out - 1) if out > 1 else 0)
    if mode == "asymmetric":
        return i / F(scale)
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros(1, F)
    return (i + F(0.5)) / F(scale) - F(0.5)


def _nearest(at: Array, how: str) -> Array:
    ways = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda x: np.ceil(x - F(0.5)),
        "round_prefer_ceil": lambda x: np.floor(x + F(0.5)),
    }
    return ways[how](at).astype(np.int64)


def _cubic(t: Array, a: float) -> Array:
    """Keys' kernel at the four distances 1 + t, t, 1 − t, 2 − t."""
    d = np.stack([t + 1, t, 1 - t, 2 - t])
    near = ((F(a) + 2) * d - (F(a) + 3)) * d * d + 1
    far = ((F(a) * d - F(5 * a)) * d + F(8 * a)) * d - F(4 * a)
    return np.where(d <= 1, near, far).astype(F)


def _taps(at: Array, size: int, given: dict[str, Any], flaws: Flaws) -> tuple[Array, Array]:
    """(indices, weights), each (taps, out)."""
    mode = flaws.mode or given["mode"]
    if mode == "nearest":
        found = _nearest(at, flaws.nearest or given.get("nearest_mode", "round_prefer_floor"))
        return np.clip(found, 0, size - 1)[None], np.ones((1, len(at)), F)
    low = np.floor(at)
    t = at - low
    if mode == "linear":
        indices, weights = low + np.array([[0], [1]]), np.stack([1 - t, t])
        weights = weights[::-1] if flaws.flipped else weights
    else:
        a = given.get("cubic_coeff_a", -0.75) if flaws.cubic is None else flaws.cubic
        indices, weights = low + np.array([[-1], [0], [1], [2]]), _cubic(t, a)
        if bool(given.get("exclude_outside", 0)) != flaws.outside:
            weights = np.where((indices >= 0) & (indices < size), weights, 0)
            weights = weights / weights.sum(axis=0)
    weights = NARROW[flaws.weights](weights.astype(F)) if flaws.weights else weights
    return np.clip(indices, 0, size - 1).astype(np.int64), weights.astype(F)


def resize(case: Case, flaws: Flaws, *, last_first: bool = False) -> Outputs | None:
    """Of (N, C, H, W) by scales, one axis after the other."""
    x, scales, given = np.asarray(case.inputs[0]), np.asarray(case.inputs[2]), dict(case.attributes)
    out = [int(np.floor(n * float(s))) for n, s in zip(x.shape, scales, strict=True)]
    way = flaws.coordinates or given.get("coordinate_transformation_mode", "half_pixel")
    axes = (3, 2) if last_first else (2, 3)
    y = x
    for axis in axes:
        factor = float(scales[5 - axis] if flaws.axes else scales[axis])
        at = coordinates(out[axis], x.shape[axis], factor, way) + F(flaws.shift)
        once = flaws.one_axis and axis == 2
        options = {**given, "mode": "nearest"} if once else given
        indices, weights = _taps(at, x.shape[axis], options, flaws)
        form = (-1, *[1] * (3 - axis))
        y = sum(np.take(y, i, axis=axis) * w.reshape(form) for i, w in zip(indices, weights, strict=True))
    return (np.asarray(y, F),)


def sample(case: Case, flaws: Flaws) -> Outputs | None:
    """GridSample, linear or nearest, of (N, C, H, W) at (N, h, w, 2)."""
    x, grid, given = np.asarray(case.inputs[0]), np.asarray(case.inputs[1]), case.attributes
    corners = bool(given.get("align_corners", 0)) != flaws.corners
    mode = flaws.mode or given.get("mode", "linear")
    padding = flaws.padding or given.get("padding_mode", "zeros")
    grid = grid[..., ::-1] if flaws.exchanged else grid
    H, W = x.shape[2:]
    at = []
    for g, n in ((grid[..., 1], H), (grid[..., 0], W)):
        p = (g + 1) / F(2) * F(n - 1) if corners else ((g + 1) * F(n) - 1) / F(2)
        p = p + F(flaws.shift)
        at.append(np.clip(p, 0, n - 1) if padding == "border" else p)
    low = [np.rint(p) if mode == "nearest" else np.floor(p) for p in at]
    t = [p - q for p, q in zip(at, low, strict=True)]
    t = [1 - v for v in t] if flaws.flipped else t
    t = [NARROW[flaws.weights](v) for v in t] if flaws.weights else t
    y = np.zeros((*x.shape[:2], *grid.shape[1:3]), F)
    corners_of = [(0, 0)] if mode == "nearest" else [(0, 0), (0, 1), (1, 0), (1, 1)]
    for dy, dx in corners_of:
        i, j = low[0] + dy, low[1] + dx
        w = np.ones_like(t[0]) if mode == "nearest" else (t[0] if dy else 1 - t[0]) * (t[1] if dx else 1 - t[1])
        inside = (i >= 0) & (i < H) & (j >= 0) & (j < W)
        picked = [
            x[n, :, np.clip(a, 0, H - 1).astype(int), np.clip(b, 0, W - 1).astype(int)]
            for n, (a, b) in enumerate(zip(i, j, strict=True))
        ]
        y += np.moveaxis(np.stack(picked), -1, 1) * (w * inside)[:, None]
    return (y,)


def compute(case: Case, flaws: Flaws = RIGHT) -> Outputs | None:
    """Either of them."""
    return sample(case, flaws) if case.op_type == "GridSample" else resize(case, flaws)


def faulty(case: Case, **flaws: Any) -> Outputs | None:
    """Either of them with one flaw."""
    return compute(case, Flaws(**flaws))


R, G = "Resize", "GridSample"

FAULTS: tuple[tuple[Any, ...], ...] = (
    ("asymmetric coordinates", R, {"coordinates": "asymmetric"}),
    ("half_pixel coordinates", R, {"coordinates": "half_pixel"}),
    ("align_corners coordinates", R, {"coordinates": "align_corners"}),
    ("nearest by floor", R, {"nearest": "floor"}),
    ("nearest by ceil", R, {"nearest": "ceil"}),
    ("ties to the ceiling", R, {"nearest": "round_prefer_ceil"}),
    ("ties to the floor", R, {"nearest": "round_prefer_floor"}),
    ("nearest in place of an interpolation", (R, G), {"mode": "nearest"}),
    ("linear in place of cubic or nearest", R, {"mode": "linear"}),
    ("cubic coefficient −0.5", R, {"cubic": -0.5}),
    ("cubic coefficient −0.75", R, {"cubic": -0.75}),
    ("exclude_outside turned round", R, {"outside": True}),
    ("scales of the two axes exchanged", R, {"axes": True}),
    ("coordinates off by a half", (R, G), {"shift": 0.5}),
    ("coordinates off by a hundredth", (R, G), {"shift": 0.01}),
    ("weights in float16", (R, G), {"weights": "FP16"}),
    ("weights in bfloat16", (R, G), {"weights": "BF16"}),
    ("weights in eight bits", (R, G), {"weights": "INT8"}),
    ("interpolated along one axis only", R, {"one_axis": True}),
    ("weights of the neighbours exchanged", (R, G), {"flipped": True}),
    ("align_corners turned round", G, {"corners": True}),
    ("zeros in place of the border", G, {"padding": "zeros"}),
    ("border in place of zeros", G, {"padding": "border"}),
    ("x and y exchanged", G, {"exchanged": True}),
)

FORMS: tuple[dict[str, Any], ...] = (
    {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"mode": "nearest"},
    {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
    {"mode": "linear"},
    {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
    {"mode": "cubic", "cubic_coeff_a": -0.5},
    {"mode": "cubic", "exclude_outside": 1},
)


def cases(quick: bool) -> Iterator[Case]:
    """Pictures made larger and smaller, and sampled in and around."""
    for kind, seed in itertools.product(KINDS, range(1 if quick else 2)):
        x = tensor(kind, (1, 3, 8, 11), seed)
        for scales, form in itertools.product(((2.0, 3.0), (0.5, 1.5), (1.7, 0.6)), FORMS):
            if "align_corners" in form.values() and scales[0] != 2:
                continue  # a fractional length: ONNX's data and its runtimes disagree on what align_corners makes of it
            given = (x, None, np.array([1, 1, *scales], F))
            yield Case(R, given, form, kind, {"nearest": 1, "linear": 4, "cubic": 16}[form["mode"]])
        grid = np.random.default_rng(seed).uniform(-1.3, 1.3, (1, 6, 7, 2)).astype(F)
        for mode, padding, corners in itertools.product(("linear", "nearest"), ("zeros", "border"), (0, 1)):
            options = {"mode": mode, "padding_mode": padding, "align_corners": corners}
            yield Case(G, (x, grid), options, kind, 4 if mode == "linear" else 1)


FAMILY = Family(
    "resize and sampling",
    cases,
    compute,
    (Variant("last axis first", lambda case: resize(case, RIGHT, last_first=True) if case.op_type == R else None),),
    (*faults(faulty, *FAULTS), *tampered(compute)),
)
