import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from ssl_swin.reporting.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    chart_data,
    format_number,
    line_chart,
    nice_ticks,
)
from ssl_swin.reporting.thinning import Curve

SVG = ElementTree.Element


def drawn(*curves: Curve) -> SVG:
    return ElementTree.fromstring(line_chart(curves))


def with_class(svg: SVG, name: str) -> list[SVG]:
    return [element for element in svg.iter() if name in element.get("class", "").split()]


def points(path: SVG) -> list[tuple[float, float]]:
    pairs = path.get("d").strip("MZ").split("L")
    return [tuple(map(float, pair.split())) for pair in pairs]


def test_line_chart__ends_map_to_the_corners_of_the_plot():
    svg = drawn(Curve("loss", [0, 30, 100], [2.0, 1.5, 1.0]))
    (line,) = with_class(svg, "line")
    middle = (LEFT + 0.3 * (RIGHT - LEFT), (TOP + BOTTOM) / 2)
    assert points(line) == [(LEFT, TOP), pytest.approx(middle, abs=0.05), (RIGHT, BOTTOM)]
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in with_class(svg, "dot")]
    assert dots == points(line)


def test_line_chart__curves_share_their_axes():
    svg = drawn(Curve("train", [0, 50], [4.0, 2.0]), Curve("val", [50, 100], [3.0, 0.0]))
    train, val = (points(line) for line in with_class(svg, "line"))
    centre_x, centre_y = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    assert train == [(LEFT, TOP), (centre_x, centre_y)]
    assert val[0] == (centre_x, pytest.approx(BOTTOM - 0.75 * (BOTTOM - TOP)))
    assert val[1] == (RIGHT, BOTTOM)


def test_line_chart__ticks_are_placed_on_their_values():
    svg = drawn(Curve("loss", [0, 20_000], [0.1, 0.9]))
    labels = {
        (text.text, float(text.get("x")), float(text.get("y"))) for text in with_class(svg, "tick")
    }
    height, width = BOTTOM - TOP, RIGHT - LEFT
    assert labels == {
        *(
            (name, LEFT - 6, BOTTOM - height * share + 4)
            for name, share in [("0.2", 1 / 8), ("0.4", 3 / 8), ("0.6", 5 / 8), ("0.8", 7 / 8)]
        ),
        *(
            (name, LEFT + width * share, BOTTOM + 16)
            for name, share in [("0", 0), ("5k", 1 / 4), ("10k", 1 / 2), ("15k", 3 / 4), ("20k", 1)]
        ),
    }


def test_line_chart__last_value_is_printed_beside_the_end():
    (label,) = with_class(drawn(Curve("loss", [0, 1], [2.0, 1 / 3])), "last")
    assert label.text == "0.3333"
    assert (float(label.get("x")), float(label.get("y"))) == (RIGHT + 7, BOTTOM + 4)


def test_line_chart__last_values_do_not_overlap():
    svg = drawn(*(Curve(str(i), [0, 1], [9.0, value]) for i, value in enumerate([1, 0, 0.01, 0.5])))
    heights = {label.text: float(label.get("y")) for label in with_class(svg, "last")}
    in_order = [heights[text] for text in ("1", "0.5", "0.01", "0")]
    assert all(upper + 12 < lower for upper, lower in pairwise(in_order))
    assert in_order[-1] == BOTTOM + 4


def test_line_chart__one_point_and_a_flat_curve_lie_in_the_middle():
    centre_x, centre_y = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    (line,) = with_class(drawn(Curve("once", [7], [3.0])), "line")
    assert points(line) == [(centre_x, centre_y)]
    (line,) = with_class(drawn(Curve("flat", [0, 1], [3.0, 3.0])), "line")
    assert points(line) == [(LEFT, centre_y), (RIGHT, centre_y)]


def test_line_chart__dense_curves_become_means_over_a_band_of_their_range():
    # pairs (0, 2): the mean is 1 everywhere, the range is the whole height
    count = 2 * MAX_POINTS
    svg = drawn(Curve("loss", list(range(count)), [0.0, 2.0] * MAX_POINTS))
    (line,), (band,) = with_class(svg, "line"), with_class(svg, "band")
    assert len(points(line)) == MAX_POINTS
    assert {y for _, y in points(line)} == {(TOP + BOTTOM) / 2}
    assert points(line)[0][0] == pytest.approx(LEFT + 0.5 / (count - 1) * (RIGHT - LEFT), abs=0.05)
    assert [y for _, y in points(band)] == [TOP] * MAX_POINTS + [BOTTOM] * MAX_POINTS

    (dot,) = with_class(svg, "dot")  # the last value as it is, not a mean
    assert (float(dot.get("cx")), float(dot.get("cy"))) == (RIGHT, TOP)


def test_line_chart__stays_within_the_picture():
    svg = drawn(Curve("lr", list(range(9)), [8.765e-4 * i for i in range(9)]))
    for text in with_class(svg, "tick") + with_class(svg, "last"):
        width = 6.5 * len(text.text)  # a generous estimate at 11 units
        anchor = {"tick": 1.0, "last": 0.0}[text.get("class").split()[0]]
        x = float(text.get("x")) - anchor * width
        if "step" not in text.get("class"):
            assert 0 <= x <= x + width <= WIDTH
        assert 0 <= float(text.get("y")) <= HEIGHT


def test_line_chart__names_are_escaped():
    chart = line_chart([Curve('<script>"', [0], [1.0])])
    assert "<script>" not in chart
    label = ElementTree.fromstring(chart).get("aria-label")
    assert label == '<script>" 1, over step'


def test_line_chart__names_its_axes_and_tells_where_they_are():
    svg = drawn(Curve("speed", [0, 1], [3.0, 4.0]))
    assert [text.text for text in with_class(svg, "axis")] == ["step"]
    chart = line_chart([Curve("speed", [0, 1], [3.0, 4.0])], x_name="stage", unit="images/s <b>")
    svg = ElementTree.fromstring(chart)
    assert [text.text for text in with_class(svg, "axis")] == ["stage"]
    assert [text.text for text in with_class(svg, "unit")] == ["images/s <b>"]
    assert svg.get("data-box") == f"{LEFT} {RIGHT} {TOP} {BOTTOM}"
    assert svg.get("aria-label") == "speed from 3 to 4, over stage"


def test_chart_data__has_the_points_that_are_drawn():
    seen = Curve("samples_seen", [0, 10], [0.0, 1000.0])
    (data,) = chart_data([Curve("loss", [0, 5, 10], [1.0, 1 / 3, 0.25])], [seen])
    assert data == {
        "steps": [0, 5, 10],
        "values": [1.0, 0.33333, 0.25],
        "lows": [1.0, 0.33333, 0.25],
        "highs": [1.0, 0.33333, 0.25],
        "thinned": False,
        "dots": True,
        "seen": [0, 500, 1000],
    }


def test_chart_data__of_a_long_curve_ends_with_its_last_value():
    count = 2 * MAX_POINTS
    (data,) = chart_data([Curve("loss", list(range(count)), [0.0, 2.0] * MAX_POINTS)])
    assert data["thinned"] and not data["dots"] and "seen" not in data
    assert data["steps"][:2] == [0.5, 2.5] and data["steps"][-1] == count - 1
    assert data["values"] == [1.0] * MAX_POINTS + [2.0]
    assert data["lows"] == [0.0] * MAX_POINTS + [2.0]
    assert data["highs"] == [2.0] * (MAX_POINTS + 1)


def test_line_chart__each_curve_has_its_own_style():
    chart = line_chart([Curve(str(i), [0], [1.0]) for i in range(7)])
    assert re.findall(r'<g class="curve curve-(\d)">', chart) == list("0123450")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 25, 50, 75, 100]),
        (0.13, 0.97, [0.25, 0.5, 0.75]),
        (-3, 5, [-2, 0, 2, 4]),
        (0, 8e-4, [0, 2e-4, 4e-4, 6e-4, 8e-4]),
        (998, 1013, [1000, 1005, 1010]),
        (4, 4, [4]),
    ],
)
def test_nice_ticks__by_hand(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_nice_ticks__are_within_the_range_and_never_too_few():
    for exponent in range(-9, 9):
        for low in (-1.7, 0.0, 0.31):
            high = low + 3.3 * 10.0**exponent
            ticks = nice_ticks(low, high)
            assert 2 <= len(ticks) <= 5
            assert low - 1e-9 <= ticks[0] and ticks[-1] <= high + 1e-9


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (0.25, "0.25"),
        (-1.5, "-1.5"),
        (9999.0, "9999"),
        (12_500.0, "12.5k"),
        (3_000_000.0, "3M"),
        (2.5e9, "2.5e9"),
        (1e-4, "1e-4"),
        (-2.5e-7, "-2.5e-7"),
        (0.30000000000000004, "0.3"),
    ],
)
def test_format_number__by_hand(value, expected):
    assert format_number(value) == expected


def test_format_number__digits_and_unit():
    assert format_number(1234.567, digits=4) == "1235"
    assert format_number(5000.0, like=20_000.0) == "5k"
    assert format_number(5e-4, like=1e-3) == "0.0005"


@pytest.mark.parametrize("high", [1.0, 1.0 + 2e-16, 1.0 + 5e-13])
def test_nice_ticks__ends_that_agree_to_rounding_are_one_tick(high):
    assert nice_ticks(1.0, high) == [1.0]
    assert nice_ticks(-high, -1.0) == [-high]
    assert len(nice_ticks(1.0, 1.0 + 1e-6)) > 2
