"""The page as text and as data; `test_reports_browser` looks at it in a browser."""

import base64
import dataclasses
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_arch.conformance.results import Header, NodeResult, Outcome
from onnx_arch.conformance.stream import Stream
from onnx_arch.reports.combine import Results
from onnx_arch.reports.document import FileView, page
from onnx_arch.reports.html import embedded, html
from onnx_arch.reports.pictures import Scatter, bits_picture, growth_picture
from onnx_arch.reports.speed import comparison, verdict
from onnx_arch.reports.speed_pictures import op_type_bars, ratio_picture, samples_picture
from onnx_arch.reports.summary import Status
from onnx_arch.reports.text import visible

ANY_TEXT = st.text(st.characters(exclude_categories=()))
VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})


class Reader(HTMLParser):
    """Collects elements, attributes and texts; notes a tag that closes another than the one open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.crossed: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def one_row_page(name: str) -> str:
    row = NodeResult(name, name, name, (name,), Outcome.FAILED, rule=name, fingerprint=name, message=name)
    stream = Stream(Header((name,), name, name, {name: name}, {name: {name: name}}, 1), (row,), None, name)
    return html(Results((stream,)))


@given(name=ANY_TEXT)
@settings(max_examples=40, deadline=None)
def test_page_with_any_name_keeps_its_structure(name: str) -> None:
    reader, plain = Reader(one_row_page(name)), Reader(one_row_page("x"))
    assert reader.crossed == []
    assert reader.open == []
    assert sorted({tag for tag, _ in reader.elements}) == sorted({tag for tag, _ in plain.elements})
    handlers = [key for _, attributes in reader.elements for key in attributes if key.startswith("on")]
    assert handlers == []


def test_hostile_names_add_no_element_and_are_all_there_to_read(make: SimpleNamespace) -> None:
    names = [name for name in make.hostile_names if name]
    reader = Reader(html(Results((make.check([make.row(name, message=name) for name in names]),))))
    count = sum(tag == "script" for tag, _ in reader.elements)
    assert count == 2
    assert not any(tag in ("img", "iframe", "object", "a") for tag, _ in reader.elements)
    for name in names:
        assert visible(name) in reader.texts


def test_policy_allows_only_the_page_s_own_script_and_style(make: SimpleNamespace) -> None:
    text = html(Results((make.check([make.row()]),)))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    policy = policy.replace("&#39;", "'")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_page_names_no_address_outside_itself(make: SimpleNamespace) -> None:
    reader = Reader(html(Results((make.check(make.residual_network()),), (make.bench(),))))
    addresses = [
        value for _, attributes in reader.elements for key, value in attributes.items() if key in ("href", "src")
    ]
    assert addresses
    assert all(str(address).startswith(("#", "data:,")) for address in addresses)


def test_embedded_file_is_its_json_lines_and_cannot_end_its_element() -> None:
    line = json.dumps({"node": "</script><!--<script>&amp;\u2028"})
    text = embedded(FileView("f", [line, line]))
    assert json.loads(text) == [json.loads(line)] * 2
    assert not set("<>&") & set(text)


def test_page_of_a_network_with_as_many_nodes_as_resnet18_is_small(make: SimpleNamespace) -> None:
    rows = make.residual_network(14)
    assert len(rows) >= 70
    assert len(html(Results((make.check(rows),), (make.bench(),))).encode()) < 500_000


def test_page_without_results_says_so() -> None:
    assert "Nothing was judged or measured." in Reader(html(Results())).texts


@pytest.mark.parametrize(
    ("outcomes", "complete", "status"),
    [
        ((Outcome.PASSED,), True, Status.GREEN),
        ((Outcome.PASSED, Outcome.UNJUDGED), True, Status.AMBER),
        ((Outcome.PASSED,), None, Status.AMBER),
        ((Outcome.UNJUDGED, Outcome.FAILED), None, Status.RED),
    ],
)
def test_page_takes_the_worst_status_of_its_checks(
    make: SimpleNamespace, outcomes: tuple[Outcome, ...], complete: bool | None, status: Status
) -> None:
    rows = [make.row(f"n{index}", outcome=outcome) for index, outcome in enumerate(outcomes)]
    checks = (make.check([make.row()]), make.check(rows, complete=complete))
    assert page(Results(checks, (make.bench(),))).status is status


def test_page_of_several_checks_names_the_failed(make: SimpleNamespace) -> None:
    bad = make.check([make.row(outcome=Outcome.FAILED)], model="vgg16.onnx")
    assert page(Results((make.check([make.row()]), bad))).headline == "1 of 2 checks failed: vgg16.onnx."


def test_row_says_dtype_and_shape_of_each_output(make: SimpleNamespace) -> None:
    row = make.row(outputs=("y", "mask", "z"), dtypes=("float32", None), shapes=((1, 2), None))
    (view,) = page(Results((make.check([row]),))).checks[0].rows
    assert view.tensors == "y: float32[1, 2]; mask; z"


# --- pictures ---------------------------------------------------------------------------------------------------------

FIGURES = st.none() | st.floats(allow_subnormal=True)


@given(figures=st.lists(st.tuples(FIGURES, FIGURES, FIGURES, st.sampled_from(Outcome)), max_size=30))
def test_marks_of_any_figures_lie_inside_the_picture(
    figures: list[tuple[float | None, float | None, float | None, Outcome]],
) -> None:
    rows = [
        NodeResult(f"n{i}", "Op", "", (), outcome, bits=bits, max_abs=own, inherited_max_abs=inherited)
        for i, (bits, own, inherited, outcome) in enumerate(figures)
    ]
    bits, growth = bits_picture(rows), growth_picture(rows)
    assert len(bits.marks) == len(rows)
    assert (growth is None) == all(row.inherited_max_abs is None for row in rows)
    for picture in (bits, growth):
        for mark in () if picture is None else picture.marks:
            assert picture.left < mark.x < picture.right
            assert 0 < mark.y < picture.axis_y


def test_bits_stand_higher_the_more_there_are_and_red_marks_are_drawn_last(make: SimpleNamespace) -> None:
    rows = [
        make.row("failed", outcome=Outcome.FAILED, bits=10.5),
        make.row("good", bits=24.0),
        make.exact_row("exact", "Relu"),
        make.exact_row("crashed", "Relu", outcome=Outcome.CRASHED),
    ]
    picture = bits_picture(rows)
    y = {mark.row: mark.y for mark in picture.marks}
    assert y[2] == Scatter.top_lane_y
    assert y[2] < y[1] < y[0] < y[3]
    assert y[3] == Scatter.bottom_lane_y
    assert [mark.style for mark in picture.marks] == ["green", "green", "red", "red"]


def test_correct_float32_bits_lie_in_the_float32_band(make: SimpleNamespace) -> None:
    picture = bits_picture([make.row(bits=23.5), make.row(bits=11.0), make.row(bits=8.0)])
    for mark, band in zip(sorted(picture.marks, key=lambda mark: mark.row), picture.bands, strict=True):
        assert band.y < mark.y < band.y + band.height


def test_growth_is_logarithmic(make: SimpleNamespace) -> None:
    rows = [make.row(max_abs=None, inherited_max_abs=10.0**power) for power in (-8, -6, -4)]
    picture = growth_picture(rows)
    assert picture is not None
    first, second, third = (mark.y for mark in picture.marks)
    assert first - second == pytest.approx(second - third, abs=0.2)
    assert first > second


# --- latency ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "interval", "words"),
    [
        (0.5, (0.4, 0.6), "2 × as fast as"),
        (2.0, (1.9, 2.1), "2 × the time of"),
        (1.05, (0.9, 1.2), "no difference can be told from"),
        (0.8, None, "1.25 × as fast as"),
    ],
)
def test_comparison_in_words(ratio: float, interval: tuple[float, float] | None, words: str) -> None:
    assert comparison(ratio, interval) == words


def test_verdict_of_benchmark_that_failed_says_why(make: SimpleNamespace) -> None:
    row = make.bench_row(outcome="disagreed", message="largest difference 0.3", ratio=None)
    row = dataclasses.replace(row, outcome=type(make.bench_row().outcome)("disagreed"))
    assert verdict(row) == "Not compared: disagreed. largest difference 0.3"


def test_samples_share_one_axis_and_every_sample_is_counted(make: SimpleNamespace) -> None:
    row = make.bench_row()
    picture = samples_picture(row)
    assert picture is not None
    ours, theirs = picture.lanes
    assert ours.median_x is not None
    assert theirs.median_x is not None
    # 21 ms against 34 ms
    assert ours.median_x < theirs.median_x
    assert all(picture.left <= column.x <= picture.right for lane in picture.lanes for column in lane.columns)
    assert "400 samples" in ours.label


@pytest.mark.parametrize("samples", [(), (0.01,), (0.01, 0.01), (0.0, 0.0)])
def test_samples_picture_of_few_or_equal_samples(make: SimpleNamespace, samples: tuple[float, ...]) -> None:
    picture = samples_picture(make.bench_row(samples_s=samples, against=None))
    assert (picture is None) == (samples == ())
    html(Results((), (make.bench([make.bench_row(samples_s=samples, against=None)]),)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_page_of_benchmark_with_impossible_figures_is_made(make: SimpleNamespace, value: float) -> None:
    one = dataclasses.replace(make.bench_row().op_types[0], time_s=value, share=value, count=value)
    figures = dict.fromkeys(("median_s", "p95_s", "items_per_s", "drift", "ratio", "load_s"), value)
    row = make.bench_row(samples_s=(0.01, value), ratio_interval=(value, value), op_types=(one,), **figures)
    assert "resnet18.onnx" in html(Results((), (make.bench([row]),)))


def test_ratio_below_one_stands_left_of_one(make: SimpleNamespace) -> None:
    picture = ratio_picture(make.bench_row())
    assert picture is not None
    assert 0 < picture.low_x < picture.x < picture.high_x < picture.one_x < 200
    assert ratio_picture(make.bench_row(ratio=None)) is None


def test_op_types_beyond_twelve_are_summed(make: SimpleNamespace) -> None:
    one = make.bench_row().op_types[0]
    entries = tuple(dataclasses.replace(one, op_type=f"Op{i}", time_s=0.001, share=0.05, count=2) for i in range(20))
    bars = op_type_bars(make.bench_row(op_types=entries))
    assert len(bars) == 13
    assert bars[-1].op_type == "8 others"
    assert math.isclose(sum(bar.share for bar in bars), 1.0)


def test_page_of_unfinished_benchmark_warns(make: SimpleNamespace) -> None:
    bench = make.bench([make.bench_row(steady=False)], complete=None)
    warnings = page(Results((), (bench,))).benchmarks[0].warnings
    assert any("cut off" in warning for warning in warnings)
    assert any("not steady" in warning for warning in warnings)
