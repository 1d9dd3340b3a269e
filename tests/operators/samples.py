"""One valid call of every operator at every version: the official node tests, and by hand where there is none.

samples_of(onnx.defs.get_schema("RoiAlign", 10, ""))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx

from onnx_arch.operators.conversion import bit_width
from onnx_arch.operators.scale import Array

from .element_types import CODES, ELEMENTS, retyped
from .node_cases import Case, all_cases

ML = "ai.onnx.ml"
F = np.float32


@dataclass(frozen=True)
class Sample:
    """Inputs, attributes and the number of outputs of one call."""

    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any]
    output_count: int = 1


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(F)


def sample(*inputs: Any, outputs: int = 1, **attributes: Any) -> Sample:
    return Sample(inputs, attributes, outputs)


IMAGE = normal(1, 2, 4, 6, 6)
MATRIX = normal(2, 3, 4)
WORDS = np.array(["a", "b", "c"], object)
TENSORS = [normal(3, 2, 3), normal(4, 2, 3)]
TREE: Mapping[str, Any] = {
    "nodes_falsenodeids": [2, 0, 0],
    "nodes_featureids": [1, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_nodeids": [0, 1, 2],
    "nodes_treeids": [0, 0, 0],
    "nodes_truenodeids": [1, 0, 0],
}
DOUBLE_TREE = {
    "nodes_values_as_tensor": np.array([0.1, 0.0, 0.0]),
}
VECTORS: Mapping[str, Any] = {"kernel_type": "RBF", "kernel_params": [0.25, 0.0, 3.0]}
BOXES = np.array([[0.0, 0.0, 4.0, 3.0], [1.0, 1.0, 5.0, 5.0]], F)

_REDUCED = sample(IMAGE, axes=[1, -1], keepdims=0)
_REDUCTIONS = {
    **{("", f"Reduce{name}", since): _REDUCED for name in ("L1", "L2", "Mean", "SumSquare") for since in (1, 11, 13)},
    **{
        ("", f"Reduce{name}", since): sample(np.abs(IMAGE), axes=[1, 2], keepdims=0)
        for name in ("LogSum", "LogSumExp")
        for since in (1, 11, 13)
    },
    **{("", "ReduceSum", since): _REDUCED for since in (1, 11)},
}
CHANCES = np.random.default_rng(10).random((10, 20)).astype(F)
_RANDOM = {
    **{("", "RandomNormal", since): sample(shape=[50, 4], mean=1.0, scale=2.0) for since in (1, 22)},
    **{("", "RandomUniform", since): sample(shape=[50, 4], low=-1.0) for since in (1, 22)},
    **{("", f"Random{name}Like", since): sample(CHANCES) for name in ("Normal", "Uniform") for since in (1, 22)},
    **{("", "Multinomial", since): sample(MATRIX, sample_size=40) for since in (7, 22)},
    **{("", "Bernoulli", since): sample(CHANCES) for since in (15, 22)},
    **{("", "Dropout", since): sample(MATRIX, is_test=1, outputs=2) for since in (1, 6)},
    **{("", "Dropout", since): sample(MATRIX, outputs=2) for since in (7, 10)},
    **{("", "Dropout", since): sample(CHANCES, np.array(0.25, F), np.array(True), outputs=2) for since in (12, 13, 22)},
}
_OLD = {
    ("", "Pad", 1): sample(MATRIX, paddings=[0, 1, 2, 0], mode="reflect"),
    ("", "Pad", 2): sample(MATRIX, pads=[1, 0, 0, 2], value=1.5),
    ("", "Clip", 1): sample(MATRIX, min=-0.5, max=0.25),
    ("", "Clip", 6): sample(MATRIX, min=-0.5),
    ("", "Slice", 1): sample(IMAGE, starts=[1, -3], ends=[9, -1], axes=[1, 3]),
    ("", "DepthToSpace", 1): sample(IMAGE, blocksize=2),
    ("", "Reshape", 1): sample(MATRIX, shape=[0, 2, -1]),
    ("", "Squeeze", 1): sample(MATRIX[:, None], axes=[1]),
    ("", "Squeeze", 11): sample(MATRIX[:, None], axes=[-2]),
    ("", "Unsqueeze", 1): sample(MATRIX, axes=[0, 3]),
    ("", "Unsqueeze", 11): sample(MATRIX, axes=[-1, 0]),
    ("", "Upsample", 1): sample(IMAGE, height_scale=2.0, width_scale=1.5),
    ("", "Upsample", 7): sample(IMAGE, scales=[1.0, 1.0, 2.0, 1.5], mode="linear"),
    ("", "Resize", 10): sample(IMAGE, np.array([1.0, 1.0, 0.5, 2.0], F), mode="linear"),
    ("", "Tile", 1): sample(MATRIX, np.array(2, F), np.array(1, F)),
    ("", "TopK", 1): sample(MATRIX, k=2, outputs=2),
    ("", "BatchNormalization", 1): sample(
        *(IMAGE, *normal(5, 3, 4), np.ones(4, F)), consumed_inputs=[0, 0, 0, 1, 1], is_test=1
    ),
    ("", "GlobalLpPool", 1): sample(IMAGE, p=2.0),
    ("", "GlobalLpPool", 2): sample(IMAGE, p=3),
    ("", "GlobalLpPool", 22): sample(IMAGE),
    ("", "RoiAlign", 10): sample(
        *(IMAGE, BOXES, np.array([0, 1])), output_height=2, output_width=3, sampling_ratio=2, spatial_scale=0.5
    ),
    ("", "MaxRoiPool", 1): sample(IMAGE, np.insert(BOXES, 0, [0, 1], 1), pooled_shape=[2, 2]),
    ("", "MaxRoiPool", 22): sample(IMAGE, np.insert(BOXES, 0, [0, 1], 1), pooled_shape=[2, 2]),
}
_SEQUENCES = {
    ("", "Optional", 15): sample(MATRIX),
    ("", "Optional", 28): sample(MATRIX),
    ("", "SequenceAt", 11): sample(TENSORS, np.array(-1)),
    ("", "SequenceConstruct", 11): sample(*TENSORS),
    ("", "SequenceEmpty", 11): sample(),
    ("", "SequenceErase", 11): sample(TENSORS, np.array(0)),
    ("", "SequenceLength", 11): sample(TENSORS),
    ("", "ConcatFromSequence", 11): sample(TENSORS, axis=-1),
}
_LEARNING = {
    (ML, "CastMap", 1): sample({3: F(1.5), 1: F(-2.0)}, cast_to="TO_FLOAT"),
    (ML, "CategoryMapper", 1): sample(WORDS, cats_strings=["a", "b", "1", "2"], cats_int64s=[1, 2, 3, 4]),
    (ML, "DictVectorizer", 1): sample({1: F(1.5), 2: F(2.5)}, int64_vocabulary=[2, 5, 1]),
    (ML, "FeatureVectorizer", 1): sample(MATRIX, MATRIX[:, :2], inputdimensions=[4, 2]),
    (ML, "Imputer", 1): sample(
        np.array([[1, 2], [0, 4]], F), imputed_value_floats=[5.0, 6.0], replaced_value_float=0.0
    ),
    (ML, "LabelEncoder", 1): sample(WORDS, classes_strings=["a", "c"]),
    (ML, "LinearClassifier", 1): sample(
        MATRIX, coefficients=normal(6, 12).tolist(), intercepts=[0.5, 0.0, -0.5], classlabels_ints=[3, 5, 7], outputs=2
    ),
    (ML, "LinearRegressor", 1): sample(MATRIX, coefficients=normal(7, 4).tolist(), intercepts=[0.5]),
    (ML, "Normalizer", 1): sample(MATRIX, norm="L2"),
    (ML, "OneHotEncoder", 1): sample(np.array([1, 2, 9]), cats_int64s=[2, 1, 3]),
    (ML, "SVMClassifier", 1): sample(
        MATRIX,
        **VECTORS,
        **{"coefficients": normal(8, 3).tolist(), "support_vectors": normal(9, 12).tolist()},
        **{"vectors_per_class": [2, 1], "rho": [0.1], "classlabels_ints": [0, 1]},
        outputs=2,
    ),
    (ML, "SVMRegressor", 1): sample(
        MATRIX,
        **VECTORS,
        **{"coefficients": normal(8, 3).tolist(), "support_vectors": normal(9, 12).tolist()},
        **{"n_supports": 3, "rho": [0.1]},
    ),
    (ML, "Scaler", 1): sample(MATRIX, offset=[1.0, 2.0, 0.0, -1.0], scale=[2.0]),
    (ML, "TreeEnsembleClassifier", 1): sample(
        MATRIX,
        **TREE,
        nodes_values=[0.1, 0.0, 0.0],
        **{"class_ids": [0, 1], "class_nodeids": [1, 2], "class_treeids": [0, 0], "class_weights": [0.75, 0.5]},
        classlabels_int64s=[4, 5],
        outputs=2,
    ),
    (ML, "TreeEnsembleClassifier", 3): sample(
        MATRIX,
        **TREE,
        **DOUBLE_TREE,
        **{"class_ids": [0, 1], "class_nodeids": [1, 2], "class_treeids": [0, 0]},
        class_weights_as_tensor=np.array([0.75, 0.5]),
        classlabels_int64s=[4, 5],
        outputs=2,
    ),
    (ML, "TreeEnsembleRegressor", 1): sample(
        MATRIX,
        **TREE,
        nodes_values=[0.1, 0.0, 0.0],
        **{"target_ids": [0, 0], "target_nodeids": [1, 2], "target_treeids": [0, 0], "target_weights": [0.75, 0.5]},
    ),
    (ML, "TreeEnsembleRegressor", 3): sample(
        MATRIX,
        **TREE,
        **DOUBLE_TREE,
        **{"target_ids": [0, 0], "target_nodeids": [1, 2], "target_treeids": [0, 0]},
        target_weights_as_tensor=np.array([0.75, 0.5]),
    ),
    (ML, "ZipMap", 1): sample(MATRIX, classlabels_int64s=[5, 6, 7, 8]),
}
_BY_WIDTH: dict[int, list[str]] = {}
for _name, _dtype in ELEMENTS.items():
    if _name not in ("string", "float6e2m3", "float6e3m2"):
        _BY_WIDTH.setdefault(bit_width(_dtype), []).append(_name)


def _recurrent(gates: int) -> Sample:
    """Two steps of two sequences of different lengths, with three inputs and two hidden values."""
    lengths = np.array([2, 1], np.int32)
    weights = (normal(21, 1, 2 * gates, 3), normal(22, 1, 2 * gates, 2), normal(23, 1, 4 * gates))
    return sample(normal(20, 2, 2, 3), *weights, lengths, hidden_size=2, outputs=2)


_LINEAR: Mapping[str, Any] = {"coefficients": normal(6, 12).tolist(), "intercepts": [0.5, 0.0, -0.5]}
_MACHINE: Mapping[str, Any] = {
    **{**VECTORS, "coefficients": normal(8, 3).tolist(), "support_vectors": normal(9, 12).tolist()},
    **{"vectors_per_class": [2, 1], "rho": [0.1]},
}
_CLASSES: Mapping[str, Any] = {
    **{**TREE, "nodes_values": [0.1, 0.0, 0.0]},
    **{"class_ids": [0, 1], "class_nodeids": [1, 2], "class_treeids": [0, 0], "class_weights": [0.75, 0.5]},
}
_KEYS: Mapping[str, list[Any]] = {"strings": ["a", "b"], "int64s": [1, 2], "floats": [0.5, 1.5]}
_TENSOR_KEYS = [np.array([1, 2], dtype) for dtype in (np.float32, np.float64, np.int16, np.int32, np.int64)]
_LABELS = (
    *(
        sample(
            np.array(keys, object if k == "strings" else None if k == "int64s" else F),
            **{f"keys_{k}": keys, f"values_{v}": values},
        )
        for k, keys in _KEYS.items()
        for v, values in _KEYS.items()
    ),
    *(sample(k, keys_tensor=k, values_tensor=v, default_tensor=v[:1]) for k in _TENSOR_KEYS for v in _TENSOR_KEYS),
    sample(np.array([1, 9]), classes_strings=["a", "c"]),
    sample(WORDS, classes_strings=["a", "c"]),
)

BY_HAND: Mapping[tuple[str, str, int], Sample] = {**_REDUCTIONS, **_RANDOM, **_OLD, **_SEQUENCES, **_LEARNING}
"""(domain, op_type, since) of versions that no node test is of, nor any that could serve."""


EXTRA: Mapping[tuple[str, str], tuple[Sample, ...]] = {
    ("", "BitCast"): tuple(
        sample(retyped(np.array([1, 0, 3, 2]), f"tensor({source})"), to=CODES[target])
        for names in _BY_WIDTH.values()
        for source in names
        for target in names
    ),
    ("", "AffineGrid"): (sample(normal(15, 2, 2, 3), np.array([2, 1, 3, 4])),),
    ("", "Gelu"): (sample(normal(16, 9).astype(np.float64), approximate="tanh"),),
    ("", "HardSwish"): (sample(normal(16, 9).astype(np.float64)),),
    **{("", f"{name}Window"): (sample(np.array(5), output_datatype=11),) for name in ("Hann", "Hamming", "Blackman")},
    ("", "Attention"): tuple(
        sample(*(normal(seed, 1, 2, 3, 4) for seed in (11, 12, 13)), mask)
        for mask in (normal(14, 3, 3), np.eye(3, dtype=bool))
    ),
    **{("", name): (_recurrent(gates),) for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))},
    ("", "Dropout"): (sample(CHANCES), sample(MATRIX, np.array(0.25, F), np.array(False))),
    ("", "QLinearConv"): (
        sample(
            *(
                np.arange(8, dtype=np.uint8).reshape(1, 1, 2, 4),
                F(0.5),
                np.uint8(3),
                np.full((1, 1, 1, 1), 2, np.uint8),
            ),
            *(np.array(0.25, F), np.array(1, np.uint8), np.array(0.125, F), np.array(7, np.uint8)),
            np.array([9], np.int32),
        ),
    ),
    ("", "DFT"): (
        sample(IMAGE[..., None], np.array(4, np.int64)),
        sample(IMAGE[..., None], np.array(4, np.int32)),
        sample(IMAGE[..., None], np.array(4, np.int64), np.array(1, np.int64)),
    ),
    ("", "SequenceInsert"): (
        *(
            sample([retyped(x, f"tensor({name})") for x in TENSORS], retyped(MATRIX, f"tensor({name})"))
            for name in ELEMENTS
        ),
        *(sample(TENSORS, TENSORS[1], np.array(-1, dtype)) for dtype in (np.int32, np.int64)),
    ),
    ("", "SplitToSequence"): (sample(MATRIX, np.array([1, 2])),),
    ("", "LayerNormalization"): tuple(sample(MATRIX, np.ones(4, F), stash_type=code, outputs=3) for code in (1, 16)),
    (ML, "CastMap"): (
        *(sample({3: F(1.5), 1: F(-2)}, cast_to=f"TO_{name}") for name in ("FLOAT", "INT64")),
        *(sample({3: "4", 1: "2"}, cast_to=f"TO_{name}") for name in ("FLOAT", "INT64", "STRING")),
    ),
    (ML, "CategoryMapper"): (sample(np.array([1, 3]), cats_strings=["a", "b"], cats_int64s=[1, 2]),),
    (ML, "DictVectorizer"): (
        sample({"a": F(1.5)}, string_vocabulary=["a", "b"]),
        sample({"a": np.float64(1.5)}, string_vocabulary=["a", "b"]),
        sample({"b": np.int64(3)}, string_vocabulary=["a", "b"]),
        sample({1: "x"}, int64_vocabulary=[1, 2]),
        sample({1: np.float64(0.5)}, int64_vocabulary=[1, 2]),
    ),
    (ML, "Imputer"): (
        sample(np.array([[1, 2], [0, 4]], np.int32), imputed_value_int64s=[5], replaced_value_int64=0),
        sample(np.array([[1, 2], [0, 4]], np.int64), imputed_value_int64s=[5], replaced_value_int64=0),
        sample(np.array([[1, 2], [0, 4]], np.float64), imputed_value_floats=[5.0], replaced_value_float=0.0),
    ),
    (ML, "LabelEncoder"): _LABELS,
    (ML, "LinearClassifier"): (sample(MATRIX, **_LINEAR, classlabels_strings=["a", "b", "c"], outputs=2),),
    (ML, "SVMClassifier"): (sample(MATRIX, **_MACHINE, classlabels_strings=["a", "b"], outputs=2),),
    (ML, "TreeEnsembleClassifier"): (sample(MATRIX, **_CLASSES, classlabels_strings=["a", "b"], outputs=2),),
    (ML, "ZipMap"): (sample(MATRIX, classlabels_strings=["a", "b", "c", "d"]),),
}
"""Further calls, where one cannot be brought into every type: attributes say the types, or several change together."""

TYPED_BY_ATTRIBUTES = {"BitCast", "CategoryMapper", "DictVectorizer", "Imputer", "LabelEncoder", "SequenceInsert"}
"""Operators whose sample cannot be brought into another type by changing one type variable."""


@cache
def _by_operator() -> Mapping[tuple[str, str], list[Case]]:
    found: dict[tuple[str, str], list[Case]] = {}
    for case in all_cases():
        found.setdefault((case.domain, case.op_type), []).append(case)
    return found


def samples_of(schema: onnx.defs.OpSchema, *, all_tests: bool = False) -> list[Sample]:
    """Calls that this version of an operator allows: one that has most of its inputs, and the further ones.

    Args:
        schema: of the version.
        all_tests: take every node test that it allows, not only one.
    """
    key = (schema.domain, schema.name)
    found = [x for x in EXTRA.get(key, ()) if _allows(schema, x)]
    by_hand = BY_HAND.get((*key, schema.since_version))
    if by_hand is not None:
        return [by_hand, *found]
    there = [Sample(case.inputs, case.attributes, len(case.outputs)) for case in _ordered(key, schema)]
    fitting = [x for x in there if _allows(schema, x) and _holds_something(x)]
    return [*(fitting if all_tests else fitting[:1]), *found]


def _ordered(key: tuple[str, str], schema: onnx.defs.OpSchema) -> list[Case]:
    """The node tests of an operator: those of this version first, and with most inputs and outputs."""

    def rank(case: Case) -> tuple[bool, int, int]:
        other = onnx.defs.get_schema(case.op_type, case.opset, case.domain).since_version != schema.since_version
        return other, -sum(x is not None for x in case.inputs), -len(case.outputs)

    return sorted(_by_operator().get(key, []), key=rank)


def _allows(schema: onnx.defs.OpSchema, call: Sample) -> bool:
    required = {name for name, attribute in schema.attributes.items() if attribute.required}
    return (
        required <= set(call.attributes) <= set(schema.attributes)
        and schema.min_input <= len(call.inputs) <= schema.max_input
        and schema.min_output <= call.output_count <= schema.max_output
    )


def _holds_something(call: Sample) -> bool:
    return not call.inputs or any(isinstance(x, list) or (x is not None and x.size > 0) for x in call.inputs)


TYPE_ATTRIBUTES: Mapping[str, str] = {
    **dict.fromkeys(("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"), "dtype"),
    **dict.fromkeys(("Bernoulli", "Multinomial", "EyeLike", "SequenceEmpty"), "dtype"),
    **dict.fromkeys(("Cast", "BitCast"), "to"),
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"), "output_datatype"),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), "output_dtype"),
}
"""The attribute that says in which type an output is, where no input does."""


def in_type(sample: Sample, schema: onnx.defs.OpSchema, variable: str, type_str: str) -> Sample | None:
    """The sample with everything that a type variable of the schema names brought into one of its types.

    None where nothing in the sample has that variable's type.
    """
    formals = [schema.inputs[min(i, len(schema.inputs) - 1)].type_str for i in range(len(sample.inputs))]
    inputs = tuple(
        retyped(x, type_str) if formal == variable else x for x, formal in zip(sample.inputs, formals, strict=True)
    )
    named = any(formal == variable and x is not None for x, formal in zip(sample.inputs, formals, strict=True))
    if named:
        return Sample(inputs, sample.attributes, sample.output_count)
    element = type_str.removeprefix("seq(").removeprefix("tensor(").rstrip(")")
    attribute = TYPE_ATTRIBUTES.get(schema.name, "")
    if attribute in schema.attributes and element in CODES:
        return Sample(inputs, {**sample.attributes, attribute: CODES[element]}, sample.output_count)
    value = sample.attributes.get("value")
    if schema.name in ("Constant", "ConstantOfShape") and isinstance(value, np.ndarray):
        return Sample(inputs, {**sample.attributes, "value": retyped(value, type_str)}, sample.output_count)
    return None


__all__ = ["BY_HAND", "EXTRA", "TYPED_BY_ATTRIBUTES", "Sample", "in_type", "samples_of"]
