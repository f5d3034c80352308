"""The pages in Chromium: readout, keyboard, enlarging, axes, width, and nothing loaded or said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Pages, launched
from PIL import Image

from ssl_swin.reporting.comparison import write_comparison
from ssl_swin.reporting.page import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.slow
ATTACK = "<img src=x onerror=alert(1)>\"'&lt;"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page; at the end it has said nothing and asked for nothing but itself."""
    pages = Pages(browser, ("file:", "data:"))

    def open_page(path: Path, width_px: int = 1280, scheme: str = "light") -> Any:
        return pages.open(path.as_uri(), width_px, 800, scheme)

    yield open_page
    pages.close()
    assert pages.said == []


def make_run(folder: Path, scale: float = 1.0, name: str = "x") -> Path:
    (folder / "reconstructions").mkdir(parents=True)
    rows = [f"step,samples_seen,train/loss,val/loss,perf/samples_per_s,train/{name}"]
    for step in range(0, 101, 10):
        rows.append(f"{step},{512 * step},{scale / 10 ** (step / 50):.6f},,800,1")
    rows[1] = f"0,0,{scale},0.75,800,1"
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    pixels = np.full((40, 60, 3), 90, dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "reconstructions/step_000100.png")
    (folder / "config.yaml").write_text(f"optim:\n  base_lr: {scale}\n  long: {300 * 'x'}\n")
    record = {"status": "finished", "command": [200 * "y"], "next": [200 * "z"], "machine": name}
    (folder / "provenance.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("one") / "run"))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    runs = [make_run(root / "a"), make_run(root / ("b" * 60), scale=2.0)]
    write_comparison(runs, root / "page.html")
    return root / "page.html"


def place(chart: Any, step: int) -> tuple[float, float]:
    """Where a step of 0 to 100 is on the screen, in the middle of the chart's height."""
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    left, right, _, _ = map(float, chart.get_attribute("data-box").split())
    units = float(chart.get_attribute("viewBox").split()[2])
    x = box["x"] + box["width"] * (left + (right - left) * step / 100) / units
    return x, box["y"] + box["height"] / 2


def test_readout__tells_the_values_at_the_pointer(opened: Any, report: Path) -> None:
    page = opened(report)
    plot = page.locator(".plot").first
    readout = plot.locator(".readout")
    assert readout.inner_text() == ""
    page.mouse.move(*place(plot.locator("svg"), 51))
    assert readout.locator("*").all_inner_texts() == ["step 50", "train 0.1"]
    page.mouse.move(*place(plot.locator("svg"), 1))
    assert readout.locator("*").all_inner_texts() == ["step 0", "train 1", "val 0.75"]
    assert plot.locator(".cursor").count() == 1
    page.mouse.move(0, 0)
    assert readout.inner_text() == "" and plot.locator(".cursor").count() == 0
    speed = page.locator("figure[data-title='perf/samples_per_s'] .plot")
    page.mouse.move(*place(speed.locator("svg"), 100))
    assert speed.locator(".readout span").all_inner_texts() == ["perf/samples_per_s 800 images/s"]


def test_readout__by_touch(browser: Any, report: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(report.as_uri())
    plot = page.locator(".plot").first
    page.touchscreen.tap(*place(plot.locator("svg"), 50))
    assert plot.locator(".readout *").all_inner_texts() == ["step 50", "train 0.1"]
    context.close()


def test_readout__by_keyboard(opened: Any, report: Path) -> None:
    page = opened(report)
    plot = page.locator(".plot").first
    plot.focus()
    seen = []
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home", "PageDown"):
        page.keyboard.press(key)
        seen.append(plot.locator(".readout b").inner_text())
    assert seen == [f"step {step}" for step in (0, 10, 100, 100, 90, 0, 100)]
    page.keyboard.press("Tab")
    assert plot.locator(".readout").inner_text() == ""


def test_axes__images_seen_and_logarithmic(opened: Any, report: Path) -> None:
    page = opened(report)
    plot = page.locator(".plot").first
    names = plot.locator(".axis")
    assert names.inner_html() == "step"
    line = plot.locator(".line").first

    def heights() -> list[float]:
        points = line.get_attribute("d").strip("M").split("L")
        return [float(point.split()[1]) for point in points]

    before = heights()
    assert before[1] - before[0] > 2 * (before[-1] - before[-2])  # a curve
    page.get_by_role("button", name="logarithmic").click()
    page.get_by_role("button", name="images seen").click()
    falls = np.diff(heights())
    assert falls == pytest.approx(np.full(10, falls.mean()), abs=0.11)  # a straight line
    assert names.inner_html() == "images seen"
    page.mouse.move(*place(plot.locator("svg"), 50))
    assert plot.locator(".readout b").inner_text() == "images seen 25,600"
    assert page.locator("[aria-pressed=true]").all_inner_texts() == ["images seen", "logarithmic"]
    page.get_by_role("button", name="linear").click()
    page.get_by_role("button", name="step", exact=True).click()
    assert heights() == pytest.approx(before, abs=0.06)


def last_values(page: Any) -> list[tuple[str, float, float]]:
    found = page.locator(".plot").first.locator(".last").all()
    return [
        (label.inner_html(), float(label.get_attribute("x")), float(label.get_attribute("y")))
        for label in found
    ]


def test_axes__last_values_stay_printed(opened: Any, tmp_path: Path) -> None:
    rows = "step,samples_seen,train/loss,val/loss\n0,0,1,1\n10,10,0.01,0.0101\n20,20,0.1,0.0999\n"
    (tmp_path / "metrics.csv").write_text(rows)
    page = opened(write_report(tmp_path))
    before = last_values(page)
    assert sorted(text for text, _, _ in before) == ["0.0999", "0.1"]
    page.get_by_role("button", name="logarithmic").click()
    logarithmic = last_values(page)
    assert [text for text, _, _ in logarithmic] == [text for text, _, _ in before]
    assert abs(logarithmic[0][2] - logarithmic[1][2]) >= 13  # apart
    middle = sum(y for _, _, y in logarithmic) / 2
    assert middle < sum(y for _, _, y in before) / 2 - 20  # with the ends of their curves
    page.get_by_role("button", name="linear").click()
    for (_, *now), (_, *then) in zip(last_values(page), before, strict=True):
        assert now == pytest.approx(then, abs=0.11)


@pytest.mark.parametrize("values", ["1,1.0000000000000002", "0,5e-324", "-3,-2.9999999999999996"])
def test_axes__of_values_equal_to_rounding(opened: Any, tmp_path: Path, values: str) -> None:
    first, second = values.split(",")
    rows = f"step,samples_seen,train/loss\n0,0,{first}\n10,10,{second}\n20,20,{first}\n"
    (tmp_path / "metrics.csv").write_text(rows)
    page = opened(write_report(tmp_path))
    for button in ("logarithmic", "images seen", "linear", "step"):
        page.get_by_role("button", name=button, exact=True).click(timeout=5_000)
    assert page.locator(".plot").first.locator(".line").count() == 1


def test_enlarge__lines_are_as_thin_as_before(opened: Any, report: Path) -> None:
    page = opened(report)
    page.locator(".panels button.enlarge").first.click()
    for kind in ("line", "grid"):
        drawn = page.locator(f"dialog svg.chart .{kind}").first
        assert drawn.evaluate("(it) => getComputedStyle(it).vectorEffect") == "non-scaling-stroke"


@pytest.mark.parametrize("which", [".panels figure", "figure:has(img)"])
@pytest.mark.parametrize("way", ["click", "Enter"])
def test_enlarge__opens_and_closes(opened: Any, report: Path, which: str, way: str) -> None:
    page = opened(report)
    figure = page.locator(which).first
    title = figure.get_attribute("data-title")
    small = figure.locator("svg.chart, img").bounding_box()["width"]
    dialog = page.locator("dialog")
    assert not dialog.is_visible()
    button = page.get_by_role("button", name=f"enlarge {title}", exact=True)
    if way == "click":
        button.click()
    else:
        button.focus()
        page.keyboard.press("Enter")
    assert dialog.is_visible() and dialog.get_attribute("aria-label") == title
    large = dialog.locator("svg.chart, img").first
    assert large.bounding_box()["width"] > 1.5 * small
    if which == ".panels figure":  # it still answers
        page.mouse.move(*place(large, 50))
        assert dialog.locator(".readout b").inner_text() == "step 50"
    if way == "click":
        page.get_by_role("button", name="close").click()
    else:
        page.keyboard.press("Escape")
    playwright.expect(dialog).to_be_hidden()
    playwright.expect(dialog.locator("figure")).to_have_count(0)  # at the event after that
    assert page.locator(which).first.get_attribute("data-title") == title
    assert button.evaluate("(it) => it === document.activeElement")


def test_enlarge__a_click_on_a_picture(opened: Any, report: Path) -> None:
    page = opened(report)
    page.locator("figure img").first.click()
    assert page.locator("dialog").is_visible()


def test_values__as_a_table(opened: Any, report: Path) -> None:
    page = opened(report)
    figure = page.locator(".panels figure").first
    figure.locator("summary").click()
    rows = figure.locator("tr")
    playwright.expect(rows).to_have_count(12)  # at the event after the click
    assert rows.nth(0).locator("th").all_inner_texts() == ["step", "train", "val"]
    assert rows.nth(1).locator("th, td").all_inner_texts() == ["0", "1", "0.75"]
    assert rows.nth(6).locator("th, td").all_inner_texts() == ["50", "0.1", ""]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [360, 1280])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_page__fits(
    opened: Any, request: pytest.FixtureRequest, which: str, width_px: int, scheme: str
) -> None:
    page = opened(request.getfixturevalue(which), width_px, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    colours = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    levels = [sum(map(int, colour[4:-1].split(","))) for colour in colours]
    assert (levels[0] > levels[1]) == (scheme == "light")
    page.locator("button.enlarge").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    assert page.locator("dialog").bounding_box()["width"] <= width_px


def test_comparison__overlays_runs_by_images_seen(opened: Any, comparison: Path) -> None:
    page = opened(comparison)
    page.get_by_role("button", name="images seen").click()
    plot = page.locator("figure[data-title='train/loss'] .plot")
    page.mouse.move(*place(plot.locator("svg"), 50))
    texts = plot.locator(".readout *").all_inner_texts()
    assert texts == ["images seen 25,600", "a 0.1", f"{60 * 'b'} 0.2"]


def test_report__hostile_names_stay_text(opened: Any, tmp_path: Path) -> None:
    page = opened(write_report(make_run(tmp_path / "run", name=ATTACK.replace("/", ""))))
    figure = page.locator(".panels figure[data-title*=onerror]")
    assert ATTACK in figure.get_attribute("data-title")
    figure.locator(".plot").focus()
    page.keyboard.press("ArrowRight")
    assert ATTACK in figure.locator(".readout").inner_text()
    figure.locator("summary").click()
    playwright.expect(figure.locator("th").nth(1)).to_contain_text(ATTACK)
    assert page.locator("img[src=x]").count() == 0


def test_report__of_a_million_steps_opens_in_a_second(opened: Any, tmp_path: Path) -> None:
    steps = np.arange(1_000_000)
    losses = np.char.mod("%.5f", np.random.default_rng(0).random(len(steps)))
    names = ",".join(["train/loss", "optim/lr", "optim/grad_norm", "perf/samples_per_s"])
    rows = (f"{step},{loss},{loss},{loss},{loss}\n" for step, loss in enumerate(losses))
    (tmp_path / "metrics.csv").write_text(f"step,{names}\n" + "".join(rows))
    page = write_report(tmp_path)
    assert page.stat().st_size < 300_000
    opened_page = opened(page)
    times = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    assert opened_page.evaluate(times) < 1000
    assert opened_page.locator(".plot svg").count() == 4
