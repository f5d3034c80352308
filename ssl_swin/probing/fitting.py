"""Training linear heads on frozen features by MAE's recipe, a grid of rates at once.

Reference: MAE's linear probe (arXiv:2111.06377, appendix A.1). It augments every epoch; on stored
features there is one view. SimMIM publishes one linear number (ViT-B: 56.7, on its 8th of 12
blocks) and none for Swin.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, MinLen
from timm.optim.lars import Lars
from torch import Tensor
from torch.nn import functional

from ssl_swin.arguments import EACH_ONCE, Count, NonNegative, Positive, Rate, RateBelow1, checked
from ssl_swin.errors import UserError
from ssl_swin.probing.features import Features
from ssl_swin.probing.heads import LinearHeads
from ssl_swin.probing.scoring import check_labels

REFERENCE_BATCH_SIZE = 256  # MAE states the probe's rate per this many images
RESIDENT_SHARE = 0.5  # of a GPU's free memory: up to this, all features are kept there


@checked
def fit_linear_heads(
    train: Features,
    *,
    num_classes: int,
    optimizer: Literal["sgd", "lars"],
    base_lrs: Annotated[Sequence[Rate], MinLen(1), EACH_ONCE],
    batch_size: Annotated[int, Ge(2)],
    epochs: Positive,
    warmup_epochs: Count,
    weight_decay: NonNegative,
    momentum: RateBelow1,
    seed: int,
    device: torch.device | str,
    on_epoch_end: Callable[[int, list[float]], None] | None = None,
) -> LinearHeads:
    """Trains one linear head per rate with cross-entropy; each equals that trained alone.

    A rate peaks at `base_lr * batch_size / 256`: step by step a linear warm-up from 0, then half a
    cosine to 0. Every epoch visits the samples in a new order, the same for all heads, and drops
    the last partial batch unless it is the only one.

    Args:
        train: Two samples or more; may be float16, and mapped from a file.
        num_classes: Labels lie in [0, num_classes).
        optimizer: MAE uses "lars".
        base_lrs: Rates per 256 samples, one head each (MAE: 0.1).
        batch_size: Samples per step, at least 2 (MAE: 16384).
        epochs: Passes over the samples (MAE: 90).
        warmup_epochs: The first of them, fewer than `epochs` (MAE: 10).
        weight_decay: L2 penalty, at least 0 (MAE: 0). Must be 0 for "lars": the decay of timm's
            LARS is not that of MAE's.
        momentum: Momentum of either optimiser, in [0, 1) (MAE: 0.9).
        seed: Decides initial weights and orders; same seed, same heads.
        device: Device on which the heads are trained. All features go there if they fill no more
            than `RESIDENT_SHARE` of its free memory, otherwise batch by batch; the result is the
            same.
        on_epoch_end: Called with the epoch, counted from 1, and each head's mean loss.

    Returns:
        The heads in the order of `base_lrs`, in eval mode, on `device`.

    Raises:
        UserError: If a setting is out of range, or a label is not one of the classes.
    """
    num_samples, num_features = train.features.shape
    check_recipe(optimizer, weight_decay, epochs, warmup_epochs)
    if num_samples < 2:
        raise UserError(f"batch norm needs 2 samples or more to train on, there are {num_samples}")
    check_labels(train.labels, num_classes)

    heads = LinearHeads(
        num_features, num_classes, len(base_lrs), generator=torch.Generator().manual_seed(seed)
    ).to(device)
    lrs = [base_lr * batch_size / REFERENCE_BATCH_SIZE for base_lr in base_lrs]
    updates = head_optimizer(optimizer, heads, lrs, momentum, weight_decay)
    steps_per_epoch = max(1, num_samples // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        updates, lambda step: _warmup_cosine(step / steps_per_epoch, warmup_epochs, epochs)
    )
    samples = _placed(train, device)
    orders = torch.Generator().manual_seed(seed)
    for epoch in range(1, epochs + 1):
        order = torch.randperm(num_samples, generator=orders)
        total = torch.zeros(len(base_lrs), device=device)
        for batch in torch.split(order[: steps_per_epoch * batch_size], batch_size):
            losses = _losses(heads, *_gathered(samples, batch, device))
            updates.zero_grad()
            losses.sum().backward()  # type: ignore[no-untyped-call]
            updates.step()
            schedule.step()
            total += losses.detach()
        if on_epoch_end is not None:
            on_epoch_end(epoch, (total / steps_per_epoch).tolist())
    return heads.eval()


def _losses(heads: LinearHeads, features: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each head, whose gradient reaches this head alone."""
    scores = heads(features).transpose(1, 2)  # classes second, as cross_entropy wants them
    targets = labels[:, None].expand(-1, scores.shape[2])
    return functional.cross_entropy(scores, targets, reduction="none").mean(dim=0)


def _placed(train: Features, device: torch.device | str) -> Features:
    if torch.device(device).type != "cuda":
        return train
    free_bytes, _ = torch.cuda.mem_get_info(device)
    if train.features.nbytes > RESIDENT_SHARE * free_bytes:
        return train
    return Features(train.features.to(device), train.labels.to(device))


def _gathered(
    samples: Features, batch: Tensor, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Takes rows of the samples to the device, sorted so that a file is read in one direction."""
    rows = batch.sort().values.to(samples.features.device)
    return samples.features[rows].to(device).float(), samples.labels[rows].to(device)


def check_recipe(optimizer: str, weight_decay: float, epochs: int, warmup_epochs: int) -> None:
    """Refuse settings of `fit_linear_heads` that contradict each other.

    Raises:
        UserError: If the warm-up is as long as the training, or "lars" has a weight decay.
    """
    if not 0 <= warmup_epochs < epochs:
        raise UserError(f"warmup_epochs must lie in [0, {epochs}), the epochs; got {warmup_epochs}")
    if optimizer == "lars" and weight_decay != 0:
        raise UserError(
            f"lars probes without weight decay, got weight_decay={weight_decay}: use "
            "weight_decay=0, or optimizer=sgd"
        )


def head_optimizer(
    name: Literal["sgd", "lars"],
    heads: LinearHeads,
    lrs: Sequence[float],
    momentum: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Builds the optimiser of linear heads, each with a rate of its own.

    Under "lars" the step of a weight matrix is scaled to the size of the matrix; a bias takes the
    plain step of SGD with momentum, as in MAE.
    """
    if name == "lars":
        return _lars(heads, lrs, momentum)
    groups = [
        {"params": [weight, bias], "lr": lr}
        for weight, bias, lr in zip(heads.weights, heads.biases, lrs, strict=True)
    ]
    return torch.optim.SGD(groups, lr=lrs[0], momentum=momentum, weight_decay=weight_decay)


def _lars(heads: LinearHeads, lrs: Sequence[float], momentum: float) -> torch.optim.Optimizer:
    """Builds MAE's LARS, which adapts matrices only, out of timm's.

    Without weight decay the two are equal to the bit. With it timm adds the decay to the norm of
    the gradient, MAE to the gradient itself: `check_recipe` refuses that.
    """
    parts = ((heads.weights, True), (heads.biases, False))
    groups = [
        {"params": [parameter], "lr": lr, "always_adapt": adapts}
        for parameters, adapts in parts
        for parameter, lr in zip(parameters, lrs, strict=True)
    ]
    optimizer: torch.optim.Optimizer = Lars(groups, lr=lrs[0], momentum=momentum, eps=0.0)
    return optimizer


def _warmup_cosine(epoch: float, warmup_epochs: int, epochs: int) -> float:
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    return 0.5 + 0.5 * math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs))
