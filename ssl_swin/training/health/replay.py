"""One step of a run once more, with the same images, masks and draws, and watched closely."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from ssl_swin.data.rng import keyed_generator, seed_globals
from ssl_swin.runs.skipped_steps import SkippedBatch, SkippedStep
from ssl_swin.training.health.step_guard import StepGuard
from ssl_swin.training.module import TrainingModule

AUTOCAST = {name: torch.bfloat16 for name in ("bf16-mixed", "bf16-true")} | {
    "16-mixed": torch.float16
}
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


class ReplayedStep(NamedTuple):
    """What was found of a step."""

    batches: Sequence[ReplayedBatch]  # of all ranks
    gradient_norm: float  # over all ranks and before clipping
    groups: Sequence["GroupNorm"]


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
) -> ReplayedStep:
    """Repeats a step up to its gradients; the batches of all ranks, one after another.

    On the CPU the sums of gradients are those of the run to the bit, with DDP of two ranks too; of
    more ranks, and of divided weights, they are equal to rounding.

    Args:
        module: With the weights before the step.
        record: What the run wrote down of it.
        load_batch: Loads a batch.
        load_samples: Loads the images of a batch one by one.
        groups: The optimiser's groups of parameters.
        device: Where to compute.
    """
    module.to(device).train()
    start = _buffers_of(module)
    gradient = _Gradient(module, record)
    found: list[tuple[SkippedBatch, float, Culprit | None]] = []
    with _threads_of(record, device):
        for _, batches in groupby(record.batches, key=lambda batch: batch.rank):
            start.undo_forward()
            for recorded in batches:
                batch = _on(load_batch(recorded), device)
                found.append((recorded, *_repeat(module, batch, recorded, record, device)))
            gradient.add_rank()
        norm = gradient.finish()
        norms = [_norm_of(module.model, group) for group in groups]
        start.undo_forward()
        module.eval()
        replayed = []
        for recorded, value, culprit in found:
            with _autocast(record.precision, device):
                losses = _sample_losses(module, load_samples(recorded), device)
            replayed.append(ReplayedBatch(recorded, value, culprit, losses))
    return ReplayedStep(replayed, norm, norms)


class _Gradient:
    """The gradient of a step, summed over its ranks as DDP sums it."""

    def __init__(self, module: TrainingModule, record: SkippedStep) -> None:
        self._parameters = list(module.parameters())
        self._share = 1 / len({batch.rank for batch in record.batches})
        self._loss_scale = record.loss_scale
        self._sums: dict[int, Tensor] = {}

    def add_rank(self) -> None:
        """Take what the batches of a rank have added up."""
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                part = parameter.grad.mul_(self._share)
                known = self._sums.get(number)
                self._sums[number] = part if known is None else known.add_(part)
                parameter.grad = None

    def finish(self) -> float:
        """Give the parameters the whole gradient without fp16's scale, and return its norm."""
        for number, total in self._sums.items():
            self._parameters[number].grad = total.mul_(1 / self._loss_scale)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))


def _repeat(
    module: TrainingModule,
    batch: Any,
    recorded: SkippedBatch,
    record: SkippedStep,
    device: torch.device,
) -> tuple[float, Culprit | None]:
    """Compute a batch, add its gradient, and find what is not finite in it."""
    before = _buffers_of(module)
    seed_globals(keyed_generator(*recorded.random_key))
    with _autocast(record.precision, device):
        loss = module.model(batch, module.normalized).loss
    (loss / record.accumulated * record.loss_scale).backward()
    after = _buffers_of(module)
    before.undo_forward()
    culprit = _culprit(module, batch, recorded, _autocast(record.precision, device))
    after.undo_forward()
    return float(loss.detach()), culprit


def _culprit(
    module: TrainingModule, batch: Any, recorded: SkippedBatch, context: AbstractContextManager[Any]
) -> Culprit | None:
    """Computes the batch once more under watch: with hooks blocks round otherwise."""
    seed_globals(keyed_generator(*recorded.random_key))
    with torch.no_grad(), context, Watch(module.model) as watch:
        module.model(batch, module.normalized)
    return watch.culprit


def _buffers_of(module: TrainingModule) -> StepGuard:
    """Remember the buffers, such as batch statistics, as they are now."""
    guard = StepGuard(module.model)
    guard.begin()
    return guard


@contextmanager
def _threads_of(record: SkippedStep, device: torch.device) -> Iterator[None]:
    """Compute with as many threads as the run did, by which a CPU cuts its sums."""
    before = torch.get_num_threads()
    if device.type == "cpu" and record.num_threads:
        torch.set_num_threads(record.num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def _norm_of(model: nn.Module, group: Mapping[str, Any]) -> GroupNorm:
    members = {id(parameter) for parameter in group["params"]}
    gradients = {
        name: parameter.grad
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
