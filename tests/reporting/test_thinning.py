import math

import numpy as np
import pytest

from ssl_swin.reporting.thinning import MOST_POINTS, Curve, CurveBuilder


def test_curve_builder__goes_back_with_the_run():
    builder = CurveBuilder("loss")
    for step in [*range(10), *range(5, 8)]:
        builder.add(step, 1.0 if step < 5 else float(step))
    assert builder.built() == Curve("loss", list(range(8)), [1.0] * 5 + [5.0, 6.0, 7.0])


@pytest.mark.parametrize("sizes", [[3], [1, 1, 1], [2000], [3, 5000, 1, 12_345], [40_000] * 3])
def test_curve_builder__many_at_once_are_as_one_by_one(sizes: list[int]) -> None:
    count = sum(sizes)
    steps, values = np.arange(0, 2 * count, 2), np.random.default_rng(0).normal(size=count)
    values[0] = math.nan
    values[count // 2] = 1000.0  # a spike
    single, many = CurveBuilder("loss"), CurveBuilder("loss")
    for step, value in zip(steps.tolist(), values.tolist(), strict=True):
        single.add(step, value)
    for at, size in enumerate(sizes):
        part = slice(sum(sizes[:at]), sum(sizes[:at]) + size)
        many.add_many(steps[part], values[part])
    one, other = single.built(), many.built()
    assert (one.steps, one.lows, one.highs) == (other.steps, other.lows, other.highs)
    assert one.values == pytest.approx(other.values)
    assert one.num_nonfinite == other.num_nonfinite == 1
    assert len(other.steps) <= MOST_POINTS + 1
    assert max(other.highs or other.values) == 1000.0
