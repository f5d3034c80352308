"""One step of a run once more, with the same images, masks and draws, and watched closely."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from ssl_swin.data.rng import keyed_generator, seed_globals
from ssl_swin.runs.skipped_steps import SkippedBatch, SkippedStep
from ssl_swin.training.module import TrainingModule

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
LoadBatch = Callable[[SkippedBatch], Any]  # a batch as the run had it
LoadSamples = Callable[[SkippedBatch], Iterator[Any]]  # its images as batches of one


class Culprit(NamedTuple):
    """The first module whose output is not finite."""

    name: str
    kind: str
    inputs_are_finite: bool


class ReplayedBatch(NamedTuple):
    """What was found of a batch."""

    recorded: SkippedBatch
    loss: float
    culprit: Culprit | None
    sample_losses: Sequence[float] | None  # in eval mode; None if the objective has none of one

    @property
    def is_exact(self) -> bool:
        """Whether the loss equals the run's to the bit."""
        return self.loss.hex() == self.recorded.loss


class GroupNorm(NamedTuple):
    """The gradient of a group of parameters, before clipping."""

    group: str
    norm: float
    not_finite: Sequence[str]  # names of its parameters with such a gradient


def replay_step(
    module: TrainingModule,
    record: SkippedStep,
    load_batch: LoadBatch,
    load_samples: LoadSamples,
    groups: Sequence[Mapping[str, Any]],
    *,
    device: torch.device,
) -> tuple[list[ReplayedBatch], list[GroupNorm]]:
    """Repeats a step up to its gradients; the batches of all ranks, one after another.

    Args:
        module: With the weights before the step.
        record: What the run wrote down of it.
        load_batch: Loads a batch.
        load_samples: Loads the images of a batch one by one.
        groups: The optimiser's groups of parameters.
        device: Where to compute.
    """
    module.to(device).train()
    share = record.loss_scale / (record.accumulated * record.world_size)
    found = []
    for recorded in record.batches:
        batch = _on(load_batch(recorded), device)
        seed_globals(keyed_generator(*recorded.random_key))
        with _autocast(record.precision, device):
            loss = module.model(batch, module.normalized).loss
        (loss * share).backward()
        culprit = _culprit(module, batch, recorded, _autocast(record.precision, device))
        found.append((recorded, float(loss.detach()), culprit))
    norms = [_norm_of(module.model, group, record.loss_scale) for group in groups]
    module.eval()
    replayed = []
    for recorded, value, culprit in found:
        with _autocast(record.precision, device):
            losses = _sample_losses(module, load_samples(recorded), device)
        replayed.append(ReplayedBatch(recorded, value, culprit, losses))
    return replayed, norms


def _culprit(
    module: TrainingModule, batch: Any, recorded: SkippedBatch, context: AbstractContextManager[Any]
) -> Culprit | None:
    """Computes the batch once more under watch: with hooks blocks round otherwise."""
    seed_globals(keyed_generator(*recorded.random_key))
    with torch.no_grad(), context, Watch(module.model) as watch:
        module.model(batch, module.normalized)
    return watch.culprit


class Watch:
    """Finds the first module of a model whose output is not finite, while it computes."""

    def __init__(self, model: nn.Module) -> None:
        """Sets the watch up.

        Args:
            model: The model; its parts are named as in its `state_dict`.
        """
        self.culprit: Culprit | None = None
        self._model = model
        self._handles: list[Any] = []

    def __enter__(self) -> "Watch":
        for name, part in self._model.named_modules():
            hook = part.register_forward_hook(self._hook(name), with_kwargs=True)
            self._handles.append(hook)
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if self.culprit is None and not _is_finite(output):
                inputs_are_finite = _is_finite((args, kwargs))
                self.culprit = Culprit(name, type(part).__name__, inputs_are_finite)

        return hook


def _is_finite(tree: Any) -> bool:
    if isinstance(tree, Tensor):
        return not tree.is_floating_point() or bool(tree.isfinite().all())
    if isinstance(tree, Mapping):
        return all(map(_is_finite, tree.values()))
    return all(map(_is_finite, tree)) if isinstance(tree, list | tuple) else True


def _norm_of(model: nn.Module, group: Mapping[str, Any], loss_scale: float) -> GroupNorm:
    members = {id(parameter) for parameter in group["params"]}
    gradients = {
        name: parameter.grad / loss_scale
        for name, parameter in model.named_parameters()
        if id(parameter) in members and parameter.grad is not None
    }
    squares = sum(float(gradient.double().square().sum()) for gradient in gradients.values())
    bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    return GroupNorm(str(group.get("name", "all")), math.sqrt(squares), bad)


def _sample_losses(
    module: TrainingModule, samples: Iterator[Any], device: torch.device
) -> list[float] | None:
    losses = []
    for sample in samples:
        try:
            with torch.no_grad():
                losses.append(float(module.model(_on(sample, device), module.normalized).loss))
        except Exception:  # an objective that compares images with one another may raise anything
            return None
    return losses


def _on(batch: Any, device: torch.device) -> Any:
    return move_data_to_device(batch, device)


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    dtype = AUTOCAST.get(precision)
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype, cache_enabled=False)
