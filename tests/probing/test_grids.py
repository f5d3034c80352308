import pytest
import torch
from clusters import RECIPE, clusters

from ssl_swin.probing.features import Features, Tap
from ssl_swin.probing.grids import knn_grid, linear_grid
from ssl_swin.probing.heads import head_accuracies
from ssl_swin.probing.knn import knn_predict
from ssl_swin.probing.scoring import accuracy


def taps_of(seed: int) -> dict[Tap, Features]:
    """One tap of noise, one of clusters."""
    good = clusters(90, seed)
    noise = torch.randn(90, 4, generator=torch.Generator().manual_seed(seed))
    return {Tap(1, "mean"): Features(noise, good.labels), Tap(2, "max"): good}


def test_linear_grid__keeps_the_head_that_is_best_on_val():
    train, val = taps_of(0), taps_of(1)
    rates = [1e-4, 1.0]
    grid, head = linear_grid(
        train, val, num_classes=3, base_lrs=rates, device="cpu", **RECIPE | {"batch_size": 16}
    )
    assert list(grid.top1_percent) == list(train)
    assert grid.settings == rates
    assert grid.best.tap == Tap(2, "max")
    assert head_accuracies(head, val[grid.best.tap], "cpu") == [grid.best.top1_percent]
    assert grid.best.top1_percent > 95 > 60 > max(grid.top1_percent[Tap(1, "mean")].values())


def noisy_taps(seed: int) -> dict[Tap, Features]:
    """Clusters of which a third has the label of another one: no accuracy is 0 or 100."""
    good = clusters(90, seed)
    labels = good.labels.clone()
    labels[:30] = (labels[:30] + 1) % 3
    return {Tap(2, "max"): Features(good.features, labels)}


def test_grids__choose_the_simplest_within_standard_errors():
    train, val = noisy_taps(0), noisy_taps(1)
    options = {"num_classes": 3, "device": "cpu", "tolerance_se": 50.0}
    recipe = RECIPE | {"batch_size": 16}
    grid, head = linear_grid(train, val, base_lrs=[3.0, 0.3, 1.0], **options, **recipe)
    (tap,) = train
    assert grid.chosen == (tap, 0.3, grid.top1_percent[tap][0.3])
    assert head_accuracies(head, val[tap], "cpu") == [grid.chosen.top1_percent]
    share = grid.best.top1_percent / 100
    expected = 50 * 100 * (share * (1 - share) / 90) ** 0.5
    assert grid.tolerance_percent == pytest.approx(expected)
    neighbours = knn_grid(train, val, ks=[5, 9, 1], temperature=0.1, **options)
    assert neighbours.chosen.setting == 9
    assert neighbours.tolerance_percent > 0


def test_knn_grid__judges_every_tap_with_every_k():
    train, val = taps_of(0), taps_of(1)
    grid = knn_grid(train, val, num_classes=3, ks=[1, 5], temperature=0.1, device="cpu")
    for tap, row in grid.top1_percent.items():
        for k, top1 in row.items():
            scores = knn_predict(
                train[tap], val[tap].features, k=int(k), temperature=0.1, num_classes=3
            )
            assert top1 == accuracy(scores, val[tap].labels)
    assert grid.best.tap == Tap(2, "max")
