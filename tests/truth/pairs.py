"""Operators that PyTorch has too, compared in float64 on the same data, at the operator's own bound for float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)

from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.scale import Array

from .digits import OPSET, allowed

RNG = np.random.default_rng(20260)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape)


def positive(*shape: int) -> Array:
    return RNG.uniform(0.1, 3.0, shape)


def within(*shape: int) -> Array:
    return RNG.uniform(-0.99, 0.99, shape)


def ints(high: int, *shape: int) -> Array:
    return RNG.integers(0, high, shape)


@dataclass(frozen=True)
class Pair:
    """One call in both.

    Attributes:
        torch: how PyTorch is called, for the table.
        inputs: of the node; None where absent.
        function: on the same inputs as tensors, absent ones left out.
        attributes: of the node.
        opset: of the node.
    """

    torch: str
    inputs: Sequence[Any]
    function: Callable[..., Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = OPSET


X, Y, P, U = normal(5, 7), normal(5, 7), positive(5, 7), within(5, 7)
IMAGE, LINE, VOLUME = normal(2, 4, 9, 8), normal(2, 4, 17), normal(1, 4, 5, 6, 7)
BATCH, MATRIX = normal(3, 4, 6), normal(6, 5)
CHANNELS, WEIGHTS = normal(4), positive(4)
LAST = np.array([-1])
TARGET = ints(4, 2, 9, 8)
QUERY, KEY, VALUE = normal(2, 3, 5, 8), normal(2, 3, 6, 8), normal(2, 3, 6, 4)
GRID = RNG.uniform(-1.2, 1.2, (2, 5, 6, 2))


def _scaled(mode: str, **options: Any) -> Callable[..., Any]:
    return lambda x, *_: F.interpolate(x, size=(14, 5), mode=mode, **options)


def _resized(mode: str, **attributes: Any) -> Pair:
    corners = attributes.get("coordinate_transformation_mode") == "align_corners"
    options = {"align_corners": corners} if mode != "nearest-exact" else {}
    options |= {"antialias": True} if attributes.get("antialias") else {}
    names = {"bilinear": "linear", "bicubic": "cubic", "nearest-exact": "nearest"}
    given = {"mode": names[mode], **attributes}
    text = ", ".join([mode, *(f"{k}={v}" for k, v in options.items())])
    return Pair(
        f"nn.functional.interpolate({text})",
        (IMAGE, None, None, np.array([2, 4, 14, 5])),
        _scaled(mode, **options),
        given,
    )


def _unary(name: str, x: Array = X, **attributes: Any) -> Pair:
    function = getattr(torch, name) if hasattr(torch, name) else getattr(F, name)
    where = "" if hasattr(torch, name) else "nn.functional."
    return Pair(f"{where}{name}", (x,), function, attributes)


PAIRS: Mapping[str, Pair] = {
    **{
        op: _unary(name)
        for op, name in {
            **{"Abs": "abs", "Neg": "neg", "Exp": "exp", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Atan": "atan"},
            **{"Sinh": "sinh", "Cosh": "cosh", "Tanh": "tanh", "Asinh": "asinh", "Erf": "erf", "Floor": "floor"},
            **{"Ceil": "ceil", "Round": "round", "Sign": "sign", "Relu": "relu", "Sigmoid": "sigmoid"},
            **{"Softplus": "softplus", "Softsign": "softsign", "Mish": "mish", "HardSwish": "hardswish"},
            **{"Swish": "silu", "IsNaN": "isnan", "Gelu": "gelu"},
        }.items()
    },
    **{op: _unary(name, P) for op, name in {"Log": "log", "Sqrt": "sqrt", "Reciprocal": "reciprocal"}.items()},
    **{op: _unary(name, U) for op, name in {"Asin": "asin", "Acos": "acos", "Atanh": "atanh"}.items()},
    "Acosh": _unary("acosh", P + 1),
    "Gelu tanh": Pair(
        "nn.functional.gelu(tanh)", (X,), lambda x: F.gelu(x, approximate="tanh"), {"approximate": "tanh"}
    ),
    "Elu": Pair("nn.functional.elu(1.5)", (X,), lambda x: F.elu(x, 1.5), {"alpha": 1.5}),
    "Celu": Pair("nn.functional.celu(1.5)", (X,), lambda x: F.celu(x, 1.5), {"alpha": 1.5}),
    "LeakyRelu": Pair("nn.functional.leaky_relu(0.25)", (X,), lambda x: F.leaky_relu(x, 0.25), {"alpha": 0.25}),
    "ThresholdedRelu": Pair("nn.functional.threshold", (X,), lambda x: F.threshold(x, 0.5, 0.0), {"alpha": 0.5}),
    "HardSigmoid": Pair("nn.functional.hardsigmoid", (X,), F.hardsigmoid, {"alpha": 1 / 6}),
    "Shrink": Pair("nn.functional.softshrink(0.5)", (X,), lambda x: F.softshrink(x, 0.5), {"lambd": 0.5, "bias": 0.5}),
    "PRelu": Pair("nn.functional.prelu", (IMAGE, CHANNELS.reshape(4, 1, 1)), lambda x, w: F.prelu(x, w.reshape(-1))),
    **{
        op: Pair(name, (X, Y), getattr(torch, name))
        for op, name in {
            "Add": "add",
            "Sub": "sub",
            "Mul": "mul",
            "Div": "div",
            "Max": "maximum",
            "Min": "minimum",
        }.items()
    },
    "Pow": Pair("pow", (P, Y), torch.pow),
    "Mod": Pair("fmod", (X, Y), torch.fmod, {"fmod": 1}),
    "Clip": Pair("clamp", (X, np.array(-0.5), np.array(0.75)), torch.clamp),
    "Where": Pair("where", (X > 0, X, Y), torch.where),
    "ReduceSum": Pair("sum", (BATCH, LAST), lambda x, _: x.sum(-1, keepdim=True)),
    "ReduceMean": Pair("mean", (BATCH, LAST), lambda x, _: x.mean(-1, keepdim=True)),
    "ReduceProd": Pair("prod", (BATCH, LAST), lambda x, _: x.prod(-1, keepdim=True)),
    "ReduceMax": Pair("amax", (BATCH, LAST), lambda x, _: x.amax(-1, keepdim=True)),
    "ReduceMin": Pair("amin", (BATCH, LAST), lambda x, _: x.amin(-1, keepdim=True)),
    "ReduceL1": Pair("norm(p=1)", (BATCH, LAST), lambda x, _: x.norm(p=1, dim=-1, keepdim=True)),
    "ReduceL2": Pair("norm", (BATCH, LAST), lambda x, _: x.norm(dim=-1, keepdim=True)),
    "ReduceLogSumExp": Pair("logsumexp", (BATCH, LAST), lambda x, _: x.logsumexp(-1, keepdim=True)),
    "CumSum": Pair("cumsum", (BATCH, np.array(1)), lambda x, _: x.cumsum(1)),
    "CumProd": Pair("cumprod", (BATCH, np.array(1)), lambda x, _: x.cumprod(1)),
    "Softmax": Pair("softmax", (BATCH,), lambda x: x.softmax(1), {"axis": 1}),
    "LogSoftmax": Pair("log_softmax", (BATCH,), lambda x: x.log_softmax(-1)),
    "Hardmax": Pair("one_hot(argmax)", (BATCH,), lambda x: F.one_hot(x.argmax(-1), 6).double()),
    "ArgMax": Pair("argmax", (BATCH,), lambda x: x.argmax(2, keepdim=True), {"axis": 2}),
    "ArgMin": Pair("argmin", (BATCH,), lambda x: x.argmin(1, keepdim=True), {"axis": 1}),
    "TopK": Pair("topk", (BATCH, np.array([3])), lambda x, _: x.topk(3)[0]),
    "MatMul": Pair("matmul", (BATCH, MATRIX), torch.matmul),
    "Gemm": Pair(
        "addmm", (X, Y, normal(5)), lambda a, b, c: torch.addmm(c, a, b.T, alpha=0.5), {"transB": 1, "alpha": 0.5}
    ),
    "Einsum": Pair(
        "einsum", (BATCH, MATRIX), lambda a, b: torch.einsum("bij,jk->bki", a, b), {"equation": "bij,jk->bki"}
    ),
    "Det": Pair("det", (normal(3, 5, 5),), torch.det),
    "Conv 1-D": Pair("conv1d", (LINE, normal(6, 2, 3)), lambda x, w: F.conv1d(x, w, groups=2), {"group": 2}),
    "Conv": Pair(
        "conv2d",
        (IMAGE, normal(6, 4, 3, 2), normal(6)),
        lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        {"strides": [2, 1], "pads": [1, 2, 1, 2], "dilations": [1, 2]},
    ),
    "Conv 3-D": Pair("conv3d", (VOLUME, normal(3, 4, 2, 3, 2)), F.conv3d),
    "ConvTranspose": Pair(
        "conv_transpose2d",
        (IMAGE, normal(4, 3, 3, 2), normal(6)),
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=(2, 3), padding=(1, 0), output_padding=(1, 2), groups=2),
        {"strides": [2, 3], "pads": [1, 0, 1, 0], "output_padding": [1, 2], "group": 2},
    ),
    "DeformConv": Pair(
        "conv2d (offsets zero)",
        (IMAGE, normal(6, 4, 3, 3), np.zeros((2, 18, 7, 6))),
        lambda x, w, _: F.conv2d(x, w),
        {"kernel_shape": [3, 3], "pads": [0, 0, 0, 0]},
    ),
    "MaxPool": Pair(
        "max_pool2d",
        (IMAGE,),
        lambda x: F.max_pool2d(x, (3, 2), stride=2, padding=1, dilation=(1, 2), ceil_mode=True),
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1] * 4, "dilations": [1, 2], "ceil_mode": 1},
    ),
    "AveragePool": Pair(
        "avg_pool2d",
        (IMAGE,),
        lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
    ),
    "LpPool": Pair(
        "lp_pool2d(3)",
        (np.abs(IMAGE),),
        lambda x: F.lp_pool2d(x, 3, 2),
        {"kernel_shape": [2, 2], "strides": [2, 2], "p": 3},
    ),
    "GlobalAveragePool": Pair("adaptive_avg_pool2d(1)", (IMAGE,), lambda x: F.adaptive_avg_pool2d(x, 1)),
    "GlobalMaxPool": Pair("adaptive_max_pool2d(1)", (IMAGE,), lambda x: F.adaptive_max_pool2d(x, 1)),
    "BatchNormalization": Pair(
        "batch_norm",
        (IMAGE, CHANNELS, CHANNELS, CHANNELS, WEIGHTS),
        lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b, eps=2.0**-10),
        {"epsilon": 2.0**-10},
    ),
    "InstanceNormalization": Pair(
        "instance_norm",
        (IMAGE, CHANNELS, CHANNELS),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=2.0**-10),
        {"epsilon": 2.0**-10},
    ),
    "GroupNormalization": Pair(
        "group_norm",
        (IMAGE, CHANNELS, CHANNELS),
        lambda x, w, b: F.group_norm(x, 2, w, b, eps=2.0**-10),
        {"num_groups": 2, "epsilon": 2.0**-10, "stash_type": 11},
    ),
    "LayerNormalization": Pair(
        "layer_norm",
        (BATCH, normal(6), normal(6)),
        lambda x, w, b: F.layer_norm(x, (6,), w, b, eps=2.0**-10),
        {"epsilon": 2.0**-10, "stash_type": 11},
    ),
    "RMSNormalization": Pair(
        "rms_norm",
        (BATCH, normal(6)),
        lambda x, w: F.rms_norm(x, (6,), w, eps=2.0**-10),
        {"epsilon": 2.0**-10, "stash_type": 11},
    ),
    "LRN": Pair(
        "local_response_norm",
        (IMAGE,),
        lambda x: F.local_response_norm(x, 3, 2.0**-6, 0.75, 1.0),
        {"size": 3, "alpha": 2.0**-6},
    ),
    "LpNormalization": Pair("nn.functional.normalize", (BATCH,), lambda x: F.normalize(x, dim=-1)),
    "SoftmaxCrossEntropyLoss": Pair("cross_entropy", (IMAGE, TARGET, WEIGHTS), F.cross_entropy),
    "NegativeLogLikelihoodLoss": Pair(
        "nll_loss", (IMAGE, TARGET), lambda x, t: F.nll_loss(x, t, reduction="sum"), {"reduction": "sum"}
    ),
    "Attention": Pair("scaled_dot_product_attention", (QUERY, KEY, VALUE), F.scaled_dot_product_attention),
    "Attention, mask": Pair(
        "scaled_dot_product_attention(mask)",
        (QUERY, KEY, VALUE, normal(5, 6)),
        F.scaled_dot_product_attention,
    ),
    "Attention, causal": Pair(
        "scaled_dot_product_attention(is_causal)",
        (QUERY, KEY, VALUE),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        {"is_causal": 1},
    ),
    "Resize": _resized("bilinear"),
    "Resize, align_corners": _resized("bilinear", coordinate_transformation_mode="align_corners"),
    "Resize, antialias": _resized("bilinear", antialias=1, exclude_outside=1),
    "Resize, cubic": _resized("bicubic", cubic_coeff_a=-0.75),
    "Resize, cubic, align_corners": _resized(
        "bicubic", coordinate_transformation_mode="align_corners", cubic_coeff_a=-0.75
    ),
    "Resize, cubic, antialias": _resized("bicubic", antialias=1, exclude_outside=1, cubic_coeff_a=-0.5),
    "Resize, nearest": _resized("nearest-exact", nearest_mode="round_prefer_ceil"),
    **{
        f"GridSample, {mode}, {padding}, {corners}": Pair(
            f"grid_sample({mode}, {padding}, {bool(corners)})",
            (IMAGE, GRID),
            lambda x, g, m=mode, p=padding, c=corners: F.grid_sample(
                x, g, mode=m, padding_mode=p, align_corners=bool(c)
            ),
            {
                "mode": {"bilinear": "linear", "bicubic": "cubic"}[mode],
                "padding_mode": padding,
                "align_corners": corners,
            },
        )
        for mode in ("bilinear", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    },
    "AffineGrid": Pair(
        "affine_grid",
        (normal(2, 2, 3), np.array([2, 4, 9, 8])),
        lambda t, _: F.affine_grid(t, [2, 4, 9, 8], align_corners=False),
    ),
    "Col2Im": Pair(
        "nn.functional.fold",
        (normal(2, 4 * 6, 20), np.array([6, 6]), np.array([3, 2])),
        lambda x, *_: F.fold(x, (6, 6), (3, 2)),
    ),
    "DepthToSpace": Pair("pixel_shuffle", (IMAGE,), lambda x: F.pixel_shuffle(x, 2), {"blocksize": 2, "mode": "CRD"}),
    "SpaceToDepth": Pair(
        "pixel_unshuffle (channels reordered)",
        (IMAGE[:, :, :8],),
        lambda x: F.pixel_unshuffle(x, 2).reshape(2, 4, 4, 4, 4).transpose(1, 2).reshape(2, 16, 4, 4),
        {"blocksize": 2},
    ),
    "DFT": Pair(
        "fft.fft",
        (np.stack([BATCH, normal(3, 4, 6)], -1),),
        lambda x: torch.view_as_real(torch.fft.fft(torch.view_as_complex(x.contiguous()), dim=1)),
        {"axis": 1},
        17,
    ),
    "STFT": Pair(
        "stft",
        (normal(2, 40, 1), np.array(4), positive(16), np.array(16)),
        lambda x, _s, w, _l: torch.view_as_real(
            torch.stft(x[..., 0], 16, 4, 16, w, center=False, return_complex=True)
        ).transpose(1, 2),
    ),
    "Pad, reflect": Pair(
        "pad(reflect)",
        (IMAGE, np.array([0, 0, 2, 1, 0, 0, 3, 2])),
        lambda x, _: F.pad(x, (1, 2, 2, 3), "reflect"),
        {"mode": "reflect"},
    ),
    "Pad, wrap": Pair(
        "pad(circular)",
        (IMAGE, np.array([0, 0, 2, 1, 0, 0, 3, 2])),
        lambda x, _: F.pad(x, (1, 2, 2, 3), "circular"),
        {"mode": "wrap"},
    ),
    "Pad, edge": Pair(
        "pad(replicate)",
        (IMAGE, np.array([0, 0, 2, 1, 0, 0, 3, 2])),
        lambda x, _: F.pad(x, (1, 2, 2, 3), "replicate"),
        {"mode": "edge"},
    ),
    "Gather": Pair("embedding", (MATRIX, ints(6, 3, 2)), lambda x, i: F.embedding(i, x)),
    "GatherElements": Pair("gather", (MATRIX, ints(6, 4, 5)), lambda x, i: x.gather(0, i)),
    **{
        f"ScatterElements, {onnx_name}": Pair(
            f"scatter_reduce({name})",
            (MATRIX, ints(6, 9, 5), normal(9, 5)),
            lambda x, i, u, n=name: x.scatter_reduce(0, i, u, n),
            {"reduction": onnx_name},
        )
        for onnx_name, name in {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}.items()
    },
    "Trilu": Pair("tril(1)", (BATCH, np.array(1)), lambda x, _: x.tril(1), {"upper": 0}),
    "Transpose": Pair("permute", (BATCH,), lambda x: x.permute(2, 0, 1), {"perm": [2, 0, 1]}),
    "Tile": Pair("tile", (X, np.array([2, 3])), lambda x, _: x.tile(2, 3)),
    "Expand": Pair("expand", (X[:, None], np.array([5, 4, 7])), lambda x, _: x.expand(5, 4, 7)),
    "NonZero": Pair("nonzero", ((X > 0).astype(float),), lambda x: x.nonzero().T),
    "Unique": Pair("unique", (ints(9, 40).astype(float),), torch.unique),
    "OneHot": Pair("one_hot", (ints(5, 6), np.array(5), np.array([0.0, 1.0])), lambda i, *_: F.one_hot(i, 5).double()),
}


@dataclass(frozen=True)
class Agreement:
    """The kernel's largest distance from PyTorch, as a share of the bound, and in itself."""

    share: float
    distance: float


def agreement(pair: Pair, name: str) -> Agreement:
    """Compare the first output.

    Raises:
        AssertionError: another shape.
    """
    call = prepare(name.split(maxsplit=1)[0].rstrip(","), pair.inputs, pair.attributes, opset=pair.opset)
    outputs, scales = call.judged()
    y, scale = np.asarray(outputs[0]), (scales or ())[0]
    given = [torch.from_numpy(np.ascontiguousarray(x)) for x in pair.inputs if x is not None]
    expected = pair.function(*given).numpy()
    assert y.shape == expected.shape, f"{name}: {y.shape}, PyTorch {expected.shape}"
    gap = np.abs(y.astype(np.float64) - expected.astype(np.float64))
    bound = allowed(scale, y.shape)
    share = np.where(gap == 0, 0.0, gap / np.maximum(bound, 1e-300))
    return Agreement(float(share.max(initial=0.0)), float(gap.max(initial=0.0)))
