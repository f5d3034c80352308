"""Probing every tap with every setting, and keeping what is best on validation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import MinLen

from ssl_swin.arguments import EACH_ONCE, Above0, Neighbours, NonNegative, checked
from ssl_swin.probing.features import Features, Tap
from ssl_swin.probing.fitting import fit_linear_heads
from ssl_swin.probing.heads import LinearHeads, head_accuracies
from ssl_swin.probing.knn import knn_predict_each
from ssl_swin.probing.score_grid import ScoreGrid
from ssl_swin.probing.scoring import accuracy, standard_error

ByTap = Mapping[Tap, Features]
Progress = Callable[[Iterable[Tap]], Iterable[Tap]]


def linear_grid(
    train: ByTap,
    val: ByTap,
    *,
    num_classes: int,
    base_lrs: Sequence[float],
    device: torch.device | str,
    tolerance_se: float = 0.0,
    progress: Progress = iter,
    **recipe: Any,
) -> tuple[ScoreGrid, LinearHeads]:
    """Trains a head per tap and rate; those of a tap share every matrix product.

    Args:
        train: What the heads learn from, by tap.
        val: What they are judged by, at the same taps.
        num_classes: Labels lie in [0, num_classes).
        base_lrs: Learning rates, as in `fit_linear_heads`.
        device: Device on which the heads are trained.
        tolerance_se: How many standard errors of the best accuracy another one may lie below it to
            count as equal; of equals, the lowest rate is chosen.
        progress: Wraps the taps, as a progress bar does.
        recipe: The other arguments of `fit_linear_heads`.

    Returns:
        All accuracies, and the head of `ScoreGrid.chosen` alone.

    Raises:
        UserError: As in `fit_linear_heads`.
    """
    rows: dict[Tap, dict[float, float]] = {}
    best_top1, best_heads, num_val = -1.0, None, len(next(iter(val.values())).labels)
    for tap in progress(train):
        heads = fit_linear_heads(
            train[tap], num_classes=num_classes, base_lrs=base_lrs, device=device, **recipe
        )
        top1s = head_accuracies(heads, val[tap], device)
        rows[tap] = dict(zip(base_lrs, top1s, strict=True))
        if max(top1s) > best_top1:
            best_top1, best_heads = max(top1s), heads
    assert best_heads is not None
    tolerance = tolerance_se * standard_error(best_top1, num_val)
    grid = ScoreGrid("linear", "base_lr", rows, tolerance, simplest="lowest")
    return grid, best_heads.head(list(base_lrs).index(grid.chosen.setting))


@checked
def knn_grid(
    train: ByTap,
    val: ByTap,
    *,
    num_classes: int,
    ks: Annotated[Sequence[Neighbours], MinLen(1), EACH_ONCE],
    temperature: Above0,
    device: torch.device | str,
    tolerance_se: NonNegative = 0.0,
) -> ScoreGrid:
    """Judges nearest neighbours at every tap with every k.

    `tolerance_se` is as in `linear_grid`; of equals, the highest k is chosen.

    Raises:
        UserError: As in `knn_predict_each`.
    """
    rows: dict[Tap, dict[float, float]] = {}
    for tap, bank in train.items():
        queries, labels = val[tap]
        scores = knn_predict_each(
            bank, queries.to(device), ks=ks, temperature=temperature, num_classes=num_classes
        )
        rows[tap] = {k: accuracy(by_class, labels) for k, by_class in scores.items()}
    best = max(top1 for row in rows.values() for top1 in row.values())
    tolerance = tolerance_se * standard_error(best, len(next(iter(val.values())).labels))
    return ScoreGrid("knn", "k", rows, tolerance, simplest="highest")
