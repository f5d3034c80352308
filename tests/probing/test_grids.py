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
