"""The words of --input and --dynamic are read as meant, or refused with what is allowed."""

from __future__ import annotations

import pytest

from onnx_arch.architectures.specification import Axis, GraphSpec, Port
from onnx_arch.errors import ExportError, InvalidArgumentError
from onnx_arch.exporters.requests import choose_axes, fit_inputs, parse_dim, parse_input
from onnx_arch.exporters.sweep import check_dynamic, classify_dims, dims_text, swept_sizes, traced_sizes
from onnx_arch.exporters.targets import bundle_name, check_names, check_target, default_opset, numpy_dtype

SPEC = GraphSpec(
    "net",
    (Port("x", ("batch", 3, "height")), Port("tokens", ("batch", "past+length"), "int64", "integers", 9)),
    (Port("y", ("batch",)),),
    (
        Axis("batch", 2, (1, 3)),
        Axis("height", 8, (8, 16), dynamic=False),
        Axis("past", 0, (0, 4)),
        Axis("length", 1, (1, 5)),
    ),
)


@pytest.mark.parametrize(
    ("text", "name", "shape", "dtype", "high"),
    [
        ("x=batch,3,224,224:float32", "x", ("batch", 3, 224, 224), "float32", None),
        ("x=1,2", "x", (1, 2), "float32", None),
        ("x=:float64", "x", (), "float64", None),
        ("past.0.key=b, 4 ,t:bfloat16", "past.0.key", ("b", 4, "t"), "bfloat16", None),
        ("ids=2,16:int64:30522", "ids", (2, 16), "int64", 30522),
        ("x=0,3:float16", "x", (0, 3), "float16", None),
    ],
)
def test_input_is_read(text, name, shape, dtype, high):
    request = parse_input(text)
    assert (request.name, request.shape, request.dtype, request.high) == (name, shape, dtype, high)


@pytest.mark.parametrize("text", ["", "x", "=1,2", "x=1;2", "x=-1,3", "x=1,2:float31", "x=1:int64:many", "x=3d"])
def test_input_that_does_not_read_is_refused(text):
    with pytest.raises(InvalidArgumentError):
        parse_input(text)


def test_dim_is_read():
    request = parse_dim("past.0.key.2=total")
    assert (request.input, request.dim, request.symbol) == ("past.0.key", 2, "total")


@pytest.mark.parametrize("text", ["x", "x=batch", "x.0", "x.a=batch", "x.0=1"])
def test_dim_that_does_not_read_is_refused(text):
    with pytest.raises(InvalidArgumentError, match=r"allowed is INPUT\.DIM=SYMBOL"):
        parse_dim(text)


def dynamic_axes(spec):
    return [axis.name for axis in spec.axes if axis.dynamic]


def test_axes_are_added_to_the_architectures_own():
    assert dynamic_axes(choose_axes(SPEC, [])) == ["batch", "past", "length"]
    assert dynamic_axes(choose_axes(SPEC, ["height"])) == ["batch", "height", "past", "length"]
    assert dynamic_axes(choose_axes(SPEC, ["none"])) == []
    assert dynamic_axes(choose_axes(SPEC, ["none", "height"])) == ["height"]


def test_sizes_freeze_and_names_leave_open():
    fitted = fit_inputs(SPEC, [parse_input("x=5,3,height")])
    assert {axis.name: (axis.size, axis.dynamic) for axis in fitted.axes}["batch"] == (5, False)
    assert {axis.name: axis.dynamic for axis in fitted.axes}["past"]
    with pytest.raises(InvalidArgumentError, match="axis batch the sizes 5 and 6"):
        fit_inputs(SPEC, [parse_input("x=5,3,8"), parse_input("tokens=6,n:int64")])


def test_size_of_a_sum_is_refused_because_it_says_nothing_of_its_parts():
    with pytest.raises(InvalidArgumentError, match=r"past\+length is a sum of axes"):
        fit_inputs(SPEC, [parse_input("tokens=2,7:int64")])


def test_sums_of_axes_have_the_sum_of_their_sizes():
    feeds = SPEC.example_inputs(past=4, length=3)
    assert feeds["tokens"].shape == (2, 7)
    assert feeds["tokens"].dtype == "int64"
    assert 0 <= feeds["tokens"].min() <= feeds["tokens"].max() < 9


def test_sweep_starts_with_the_axes_own_sizes_and_varies_each_alone():
    spec = choose_axes(SPEC, [])
    swept = swept_sizes(spec)
    assert swept[0] == {"batch": 2, "height": 8, "past": 0, "length": 1}
    assert {"batch": 3, "height": 8, "past": 0, "length": 1} in swept
    assert {"batch": 2, "height": 8, "past": 4, "length": 1} in swept
    assert {"batch": 1, "height": 8, "past": 0, "length": 1} in swept
    assert all(sizes["height"] == 8 for sizes in swept)
    assert len({tuple(sizes.values()) for sizes in swept}) == len(swept)


def test_traced_sizes_are_none_that_tracing_takes_for_constants():
    assert traced_sizes(choose_axes(SPEC, [])) == {"batch": 2, "height": 8, "past": 2, "length": 2}
    assert traced_sizes(choose_axes(SPEC, ["none"])) == {"batch": 2, "height": 8, "past": 0, "length": 1}


def test_dims_are_classified():
    dims = {"x": ("batch", 3, 8), "tokens": ("batch", "past + length")}
    found = classify_dims(choose_axes(SPEC, []), dims, [{"batch": 1, "past": 0, "length": 1}])
    assert found["axes"][0] == {"name": "batch", "status": "tied", "dims": ["x.0", "tokens.0"], "tested": [1]}
    assert found["frozen"] == {"x.1": 3, "x.2": 8}
    assert next(iter(dims_text(found))) == "tied batch (x.0 = tokens.0), proved at 1"
    with pytest.raises(ExportError, match=r"axis batch was to be dynamic, but the module fixes tokens.0 at 2"):
        check_dynamic(choose_axes(SPEC, []), {"x": ("batch", 3, 8), "tokens": (2, "n")})


def test_targets_are_checked():
    check_target("bfloat16", 25)
    check_target(None, None)
    assert (default_opset("float32"), default_opset("bfloat16"), default_opset(None)) == (20, 22, 20)
    for dtype, opset in (("int8", None), (None, 29), (None, 17)):
        with pytest.raises(InvalidArgumentError):
            check_target(dtype, opset)


def test_names_of_bundles():
    assert bundle_name("resnet18") == "resnet18"
    assert bundle_name("a/b/net.py:make") == "make"
    assert bundle_name("package.net:make") == "make"
    for name in ("net.py", "a/b", "net.py:", "", "x:../y"):
        with pytest.raises(InvalidArgumentError):
            bundle_name(name)
    with pytest.raises(InvalidArgumentError, match="would both be written to make"):
        check_names(["a.py:make", "b.py:make"])


def test_dtypes_by_name():
    assert numpy_dtype("bfloat16").itemsize == 2
    assert numpy_dtype("bool").kind == "b"
    with pytest.raises(InvalidArgumentError, match="no dtype 'float31'"):
        numpy_dtype("float31")
