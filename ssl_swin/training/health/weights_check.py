"""Whether weights are of any use, at a run's start and at its end, where no step would notice."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

from ssl_swin.errors import TrainingGaveUp, UserError
from ssl_swin.runs.finite import in_short, non_finite
from ssl_swin.training.sharding import gathered

if TYPE_CHECKING:
    from ssl_swin.training.module import TrainingModule

NUM_IMAGES = 16
EXPLODED = 2.0  # loss over that of predicting the mean; an untrained model has 1.0 to 1.2


def check_start(module: "TrainingModule") -> None:
    """Refuses weights from which nothing can be learned.

    Raises:
        UserError: If one is not finite.
    """
    bad = non_finite(module.model.state_dict())
    if bad:
        raise UserError(
            f"the weights that training would start from are not finite ({in_short(bad)}): "
            "start from others, with backbone=, or continue an earlier checkpoint with resume="
        )


def check_result(module: "TrainingModule") -> None:
    """Looks at the weights, the last validation, and the loss of some held-out images.

    All ranks do the same on the same images.

    Args:
        module: At the end of training, still on its device.

    Raises:
        TrainingGaveUp: If weights or losses are not finite, or the loss has exploded.
    """
    step = module.trainer.global_step
    bad = non_finite(module.model.state_dict())
    if bad:
        raise TrainingGaveUp(_message(f"weights are not finite ({in_short(bad)})", step))
    validated = {k: float(v) for k, v in module.trainer.callback_metrics.items()}
    measured = _measure(module)
    for where, metrics in (("validation", _losses(validated)), ("held-out images", measured)):
        problem = problem_of(metrics)
        if problem:
            raise TrainingGaveUp(_message(f"on {where} {problem}", step))


def problem_of(metrics: Mapping[str, float]) -> str:
    """Return what is wrong with losses, as a phrase; nothing if they may be a result's.

    Args:
        metrics: "loss", and "loss_vs_mean" where the objective has it.
    """
    loss, share = metrics.get("loss", 0.0), metrics.get("loss_vs_mean", 0.0)
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if share > EXPLODED:
        return f"the loss is {loss:.4g}, {share:.4g} times that of predicting the mean"
    return ""


def _losses(metrics: Mapping[str, float]) -> dict[str, float]:
    return {
        name: metrics[f"val/{name}"]
        for name in ("loss", "loss_vs_mean")
        if f"val/{name}" in metrics
    }


@torch.no_grad()
def _measure(module: "TrainingModule") -> dict[str, float]:
    trainer = module.trainer
    try:
        batch = trainer.datamodule.held_out_batch(NUM_IMAGES)  # type: ignore[attr-defined]
    except UserError:  # no image can be read, which training has said
        return {}
    batch = trainer.strategy.batch_to_device(batch, module.device)
    metrics: dict[str, Metric] = {
        k: m.to(module.device) for k, m in module.model.new_metrics().items()
    }
    training = module.training
    module.eval()
    with gathered(trainer), trainer.precision_plugin.forward_context():
        module.model.evaluate(metrics, batch, module.normalized)
    module.train(training)
    names = [name for name in ("loss", "loss_vs_mean") if name in metrics]
    return {name: float(metrics[name].compute()) for name in names}


def _message(problem: str, step: int) -> str:
    return (
        f"after {step:,} steps {problem}: this run gives nothing to hand on. Lower optim.base_lr, "
        "lengthen the warm-up, or start from an earlier checkpoint"
    )
