"""The page in a real browser: Chromium, headless, from a file; skipped where it or its driver is not installed."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_arch.conformance.json_lines import encode_line
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.reports.combine import Results
from onnx_arch.reports.html import html
from onnx_arch.reports.text import visible

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

Driver = Any
Show = Callable[[str], Driver]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    browser.set_script_timeout(30)
    yield browser
    browser.quit()


@pytest.fixture
def show(driver: Driver, tmp_path: Path) -> Iterator[Show]:
    """Opens a page from a file; afterwards checks that it said nothing on the console and asked for nothing."""
    path = tmp_path / "report.html"

    def open_page(text: str) -> Driver:
        path.write_text(text, encoding="utf-8")
        driver.get(path.as_uri())
        return driver

    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    size(driver, 1280, 900)
    drain(driver)
    yield open_page
    console, requests = drain(driver)
    assert console == []
    assert requests == {path.as_uri()}


def drain(driver: Driver) -> tuple[list[str], set[str]]:
    """What the page has said on the console and which addresses it has asked for since the last call."""
    console = [entry["message"] for entry in driver.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return console, {url for url in sent if not url.startswith("data:")}


def size(driver: Driver, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def column(driver: Driver, label: str) -> Any:
    """The header of the column of that label."""
    headers = driver.find_elements("css selector", ".sheet thead th")
    return next(header for header in headers if header.get_attribute("textContent").strip() == label)


def cells(driver: Driver, label: str) -> list[str]:
    """Texts of the column of that label, of the rows that are shown, from top to bottom."""
    script = """
      const headers = [...document.querySelectorAll('.sheet thead th')].map(h => h.textContent.trim());
      const column = headers.indexOf(arguments[0]);
      return [...document.querySelectorAll('.sheet tbody tr')].filter(row => row.checkVisibility())
        .map(row => (row.cells[column].querySelector('summary') ?? row.cells[column]).textContent.trim());
    """
    return driver.execute_script(script, label)


def mixed_rows(make: SimpleNamespace) -> list[NodeResult]:
    return [
        make.row("n10", "Conv", bits=24.5, max_abs=2e-7),
        make.row("n9", "MatMul", Outcome.FAILED, bits=10.5, max_abs=3e-3, message="rms z 96 is above 1.6"),
        make.exact_row("n1", "Relu"),
        make.row("n2", "conv", bits=8.25, max_abs=1e-9),
        make.row("n3", "Frobnicate", Outcome.UNJUDGED, bits=None, max_abs=None, message="no kernel"),
    ]


def page_of(rows: list[NodeResult], make: SimpleNamespace, **fields: Any) -> str:
    return html(Results((make.check(rows, **fields),)))


def test_browser_shows_headline_every_row_and_a_mark_for_each(make: SimpleNamespace, show: Show) -> None:
    driver = show(html(Results((make.check(mixed_rows(make)),), (make.bench(),))))
    assert driver.find_element("tag name", "h1").text == "1 node of 5 failed; the first is n9 (MatMul)."
    assert cells(driver, "node") == ["n10", "n9", "n1", "n2", "n3"]
    assert cells(driver, "outcome") == ["passed", "failed", "passed", "passed", "unjudged"]
    first, _growth = driver.find_elements("css selector", ".scatter")
    assert len(first.find_elements("css selector", ".mark")) == 5
    assert len(first.find_elements("css selector", ".mark.red")) == 1
    assert driver.find_element("css selector", ".bench .headline").text.startswith("20.9 ms per run of batch 1; 1.61 ×")
    assert driver.find_element("css selector", ".samples").is_displayed()


@pytest.mark.parametrize(
    ("label", "ascending"),
    [
        # by number, by word with numbers in them counted, without a value last
        ("bits", ["n2", "n9", "n10", "n1", "n3"]),
        ("own error", ["n1", "n2", "n10", "n9", "n3"]),
        ("node", ["n1", "n2", "n3", "n9", "n10"]),
        ("operator", ["n10", "n2", "n3", "n9", "n1"]),
        ("#", ["n10", "n9", "n1", "n2", "n3"]),
    ],
)
def test_browser_sorts_both_ways_and_says_so(
    make: SimpleNamespace, show: Show, label: str, ascending: list[str]
) -> None:
    driver = show(page_of(mixed_rows(make), make))
    header = column(driver, label)
    assert header.get_attribute("aria-sort") == "none"
    header.find_element("tag name", "button").click()
    assert cells(driver, "node") == ascending
    assert header.get_attribute("aria-sort") == "ascending"
    header.find_element("tag name", "button").click()
    assert header.get_attribute("aria-sort") == "descending"
    values = dict(zip(cells(driver, "node"), cells(driver, label), strict=True))
    known, unknown = ([n for n in ascending if (values[n] != "–") == has] for has in (True, False))
    assert cells(driver, "node")[0] == known[-1]
    assert cells(driver, "node")[len(known) :] == unknown


def test_browser_sorts_every_column_by_keyboard(make: SimpleNamespace, show: Show) -> None:
    driver = show(page_of(mixed_rows(make), make))
    headers = driver.find_elements("css selector", ".sheet thead th")
    assert len(headers) == 12
    for header in headers:
        button = header.find_element("tag name", "button")
        driver.execute_script("arguments[0].focus()", button)
        button.send_keys("\ue007")
        assert header.get_attribute("aria-sort") == "ascending"
        assert len(driver.find_elements("css selector", '[aria-sort="ascending"]')) == 1


def test_browser_filters_by_text_and_outcome(make: SimpleNamespace, show: Show) -> None:
    driver = show(page_of(mixed_rows(make), make))
    search = driver.find_element("css selector", ".search input")
    search.send_keys("CONV")
    assert cells(driver, "node") == ["n10", "n2"]
    assert driver.find_element("css selector", ".shown").text == "2 of 5 shown"
    search.send_keys(" n2")
    assert cells(driver, "node") == ["n2"]
    search.clear()
    search.send_keys("no such thing")
    assert cells(driver, "node") == []
    driver.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", search)
    failed = driver.find_element("css selector", '[data-outcome="failed"][aria-pressed]')
    unjudged = driver.find_element("css selector", '[data-outcome="unjudged"][aria-pressed]')
    failed.click()
    assert (cells(driver, "node"), failed.get_attribute("aria-pressed")) == (["n9"], "true")
    unjudged.click()
    assert cells(driver, "node") == ["n9", "n3"]
    failed.click()
    unjudged.click()
    assert len(cells(driver, "node")) == 5
    assert driver.find_element("css selector", ".shown").text == ""


def test_browser_goes_from_a_mark_to_its_row_even_if_filtered_out(make: SimpleNamespace, show: Show) -> None:
    driver = show(page_of(mixed_rows(make), make))
    driver.find_element("css selector", ".search input").send_keys("n10")
    mark = driver.find_element("css selector", ".scatter .mark.red")
    webdriver.ActionChains(driver).move_to_element(mark).perform()
    tip = driver.find_element("id", "tip")
    assert tip.is_displayed()
    assert "n9 · MatMul · failed" in tip.text
    mark.click()
    found = driver.find_element("css selector", "tr.found")
    assert found.is_displayed()
    assert found.find_element("css selector", "summary").text == "n9"
    assert driver.switch_to.active_element.text == "n9"


def test_browser_opens_a_row_for_its_outputs(make: SimpleNamespace, show: Show) -> None:
    driver = show(page_of([make.row("conv", outputs=("y",))], make))
    details = driver.find_element("css selector", "th.node details")
    assert not details.find_element("tag name", "dl").is_displayed()
    details.find_element("tag name", "summary").click()
    assert "y: float32[1, 8, 4, 4]" in details.text


def test_browser_saves_the_results_as_they_were(make: SimpleNamespace, show: Show) -> None:
    stream = make.check(mixed_rows(make))
    driver = show(html(Results((stream,))))
    script = """
      const done = arguments[0];
      URL.createObjectURL = (blob) => { blob.text().then(done); return '#'; };
      document.querySelector('.files button').click();
    """
    saved = driver.execute_async_script(script).splitlines()
    expected = [encode_line(record) for record in (stream.header, *stream.rows, stream.footer)]
    assert [json.loads(line) for line in saved] == [json.loads(line) for line in expected]


def test_browser_shows_hostile_names_inert(make: SimpleNamespace, show: Show) -> None:
    names = make.hostile_names
    rows = [
        make.row(name, name[:200], list(Outcome)[index % 8], rule=name[:50], message=name, fingerprint=name)
        for index, name in enumerate(names)
    ]
    driver = show(page_of(rows, make, model=names[1], options={names[0]: names[2]}, command=names))
    elements = "return document.querySelectorAll('img, iframe, object, embed, a, script:not([type])').length"
    assert driver.execute_script(elements) == 1
    # Text as it stands in the page: no normalisation of spaces.
    script = "return [...document.querySelectorAll('th.node summary bdi')].map(e => e.textContent)"
    assert driver.execute_script(script) == [visible(name) for name in names]
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    "smuggled",
    [
        "<script>document.title = 'owned'</script>",
        "<svg onload=\"document.title = 'owned'\"></svg>",
        '<img src="data:," onerror="document.title = \'owned\'">',
    ],
)
def test_browser_runs_no_smuggled_script_even_if_escaping_failed(
    make: SimpleNamespace, driver: Driver, tmp_path: Path, smuggled: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of(mixed_rows(make), make).replace("<main>", f"<main>{smuggled}", 1), encoding="utf-8")
    driver.get(path.as_uri())
    console, _ = drain(driver)
    assert driver.title == "resnet18.onnx · onnx-arch"
    assert any("Content Security Policy" in message for message in console)


def test_browser_handles_1800_rows(make: SimpleNamespace, show: Show) -> None:
    rows = make.residual_network(360)
    assert len(rows) >= 1800
    text = page_of(rows, make)
    assert len(text.encode()) < 5_000_000
    driver = show(text)
    column(driver, "bits").find_element("tag name", "button").click()
    shown = [float(bits) for bits in cells(driver, "bits") if bits != "–"]
    assert shown == sorted(shown)
    driver.find_element("css selector", ".search input").send_keys("gemm_0")
    assert cells(driver, "node") == ["Gemm_0"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_follows_colour_scheme_with_readable_text(make: SimpleNamespace, show: Show, scheme: str) -> None:
    driver = show(html(Results((make.check(mixed_rows(make), complete=None, nodes=9),), (make.bench(),))))
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    # Contrast of WCAG 2: 4.5 for text. The background is the nearest one that is not transparent.
    script = """
      const parse = c => c.match(/[\\d.]+/g).map(Number);
      const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = c => { const [r, g, b] = parse(c).map(linear);
        return .2126 * r + .7152 * g + .0722 * b; };
      const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (parse(c)[3] !== 0) return c; } return 'rgb(255, 255, 255)'; };
      const selectors = 'h1, h2, .headline, .counts li, .warning, .failure, thead button, td, .name, .outcome, dt, dd';
      return [...document.querySelectorAll(selectors)].filter(e => e.checkVisibility()).map(e => {
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
        return [(a + .05) / (b + .05), e.className || e.tagName]; });
    """
    contrasts = driver.execute_script(script)
    assert len(contrasts) > 40
    assert [entry for entry in contrasts if entry[0] < 4.5] == []
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) < 200) == (scheme == "dark")


def test_browser_fits_400_pixels(make: SimpleNamespace, show: Show) -> None:
    driver = show(html(Results((make.check(mixed_rows(make)),), (make.bench(),))))
    size(driver, 400, 800)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
    assert float(driver.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)")) >= 14


def test_browser_prints_without_tools(make: SimpleNamespace, show: Show) -> None:
    driver = show(page_of(mixed_rows(make), make))
    assert driver.find_element("css selector", ".tools").is_displayed()
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not driver.find_element("css selector", ".tools").is_displayed()
    assert cells(driver, "node") == ["n10", "n9", "n1", "n2", "n3"]


def test_browser_without_scripts_shows_everything_but_the_tools(
    make: SimpleNamespace, show: Show, driver: Driver
) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(page_of(mixed_rows(make), make))
        assert [row.is_displayed() for row in driver.find_elements("css selector", ".sheet tbody tr")] == [True] * 5
        assert driver.find_elements("css selector", ".scatter .mark.red title")[0].get_attribute("textContent")
        assert not driver.find_element("css selector", ".tools").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
