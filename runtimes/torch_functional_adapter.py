"""PyTorch's own functions for models of one node; see `worker.py` for the contract of an adapter.

An independent implementation in float32 to hold a verdict against, not a runtime: it knows the operators below with the
attributes below, and says of everything else that it does not support it. It is not registered; name it by its path.
"""

from __future__ import annotations

import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

HONOURS = ("optimization", "deterministic", "threads")
ML_DTYPES = False
EXTRA = ()


def load(model_path, options):
    """A session of the one node of `model_path`."""
    if options["threads"] is not None:
        torch.set_num_threads(int(options["threads"]))
    return FunctionalSession(onnx.load(model_path))


def _conv(x, w, b=None, *, pads=None, strides=1, dilations=1, group=1):
    rank = x.ndim - 2
    begin = _symmetric(pads, rank)
    return (torch.conv1d, torch.conv2d, torch.conv3d)[rank - 1](x, w, b, strides, begin, dilations, group)


def _conv_transpose(x, w, b=None, *, pads=None, strides=1, dilations=1, group=1, output_padding=0):
    rank = x.ndim - 2
    function = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[rank - 1]
    return function(x, w, b, strides, _symmetric(pads, rank), output_padding, group, dilations)


def _symmetric(pads, rank):
    pads = [0] * 2 * rank if pads is None else list(pads)
    if pads[:rank] != pads[rank:]:
        raise NotImplementedError("padding that differs before and after")
    return pads[:rank]


def _gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):  # noqa: N803 - the names of the specification
    a, b = a.T if transA else a, b.T if transB else b
    return alpha * (a @ b) if c is None else torch.addmm(c.expand(a.shape[0], b.shape[1]), a, b, beta=beta, alpha=alpha)


def _layer_norm(x, w, b=None, *, axis=-1, epsilon=1e-5):
    return functional.layer_norm(x, x.shape[axis:], w, b, epsilon)


def _rms_norm(x, w, *, axis=-1, epsilon=1e-5):
    return functional.rms_norm(x, x.shape[axis:], w, epsilon)


def _batch_norm(x, w, b, mean, variance, *, epsilon=1e-5):
    return functional.batch_norm(x, mean, variance, w, b, eps=epsilon)


def _average_pool(x, *, kernel_shape, strides=None, pads=None, ceil_mode=0, count_include_pad=0):
    rank = x.ndim - 2
    function = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    if ceil_mode:
        raise NotImplementedError("what a last, partial window counts differs")
    return function(x, kernel_shape, strides or [1] * rank, _symmetric(pads, rank), False, bool(count_include_pad))


def _max_pool(x, *, kernel_shape, strides=None, pads=None, ceil_mode=0, dilations=1):
    rank = x.ndim - 2
    if ceil_mode:
        raise NotImplementedError("whether a last, partial window counts differs")
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    return function(x, kernel_shape, strides or [1] * rank, _symmetric(pads, rank), dilations)


def _attention(q, k, v, mask=None, *, is_causal=0, scale=None, softcap=0.0):
    if softcap or (is_causal and mask is not None):
        raise NotImplementedError("softcap, or a causal mask beside another")
    several = q.shape[1] != k.shape[1]
    attend = functional.scaled_dot_product_attention
    return attend(q, k, v, mask, is_causal=bool(is_causal), scale=scale, enable_gqa=several)


def _reduced(function):
    return lambda x, axes: function(x, dim=tuple(axes.tolist()), keepdim=True)


def _norm(order):
    return lambda x, axes: torch.linalg.vector_norm(x, order, dim=tuple(axes.tolist()), keepdim=True)


OPERATORS = {
    "MatMul": torch.matmul,
    "Einsum": lambda *x, equation: torch.einsum(equation, *x),
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Softmax": lambda x, *, axis=-1: torch.softmax(x, axis),
    "LogSoftmax": lambda x, *, axis=-1: torch.log_softmax(x, axis),
    "Attention": _attention,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": lambda x, w, b, *, num_groups, epsilon=1e-5: functional.group_norm(
        x, num_groups, w, b, epsilon
    ),
    "InstanceNormalization": lambda x, w, b, *, epsilon=1e-5: functional.instance_norm(
        x, weight=w, bias=b, eps=epsilon
    ),
    "BatchNormalization": _batch_norm,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "ReduceSum": _reduced(torch.sum),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMin": _reduced(torch.amin),
    "ReduceLogSumExp": _reduced(torch.logsumexp),
    "ReduceL1": _norm(1),
    "ReduceL2": _norm(2),
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "Erf": torch.erf,
    "Gelu": lambda x, *, approximate="none": functional.gelu(x, approximate=approximate),
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "Mish": functional.mish,
    "HardSwish": functional.hardswish,
    "Selu": torch.selu,
    "Elu": lambda x, *, alpha=1.0: functional.elu(x, alpha),
    "Celu": lambda x, *, alpha=1.0: functional.celu(x, alpha),
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Asinh": torch.asinh,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Relu": torch.relu,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Where": torch.where,
}


class FunctionalSession:
    """One function and the tensors that the model holds."""

    def __init__(self, model):
        (self._node,) = model.graph.node
        if self._node.op_type not in OPERATORS:
            raise NotImplementedError(f"no function for {self._node.op_type}")
        self._attributes = {a.name: _text(helper.get_attribute_value(a)) for a in self._node.attribute}
        self._held = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
        self._inputs = [value.name for value in model.graph.input]

    def info(self):
        """Versions and names."""
        return {
            "versions": {"torch": torch.__version__},
            "providers": ["CPUExecutionProvider"],
            "input_names": self._inputs,
            "output_names": list(self._node.output),
        }

    def run(self, feeds, outputs):
        """The one output by name."""
        named = {**self._held, **{name: _tensor(x) for name, x in feeds.items()}}
        function = OPERATORS[self._node.op_type]
        try:
            y = function(*[named[name] if name else None for name in self._node.input], **self._attributes)
        except TypeError as error:
            raise NotImplementedError(str(error)) from error
        return {self._node.output[0]: y.numpy()}


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def _tensor(x):
    try:
        return torch.from_numpy(x.copy())
    except (TypeError, AttributeError) as error:
        raise NotImplementedError(f"a tensor that PyTorch does not take: {error}") from error
