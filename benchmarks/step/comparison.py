"""Variants of a training step, measured in turn on one workload."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from benchmarks.step.cost import allocated_bytes, count_flops, memory
from benchmarks.step.timing import Product, alternate, time_s
from benchmarks.step.variants import Absent, Prepared, Variant, build
from benchmarks.step.workload import Workload

REFERENCES = ("original", "timm")  # the first of them that takes part
STEPS = {"cpu": 1, "cuda": 5}  # in a turn, so that a GPU need not wait for each
BATCH_SIZES = {"cpu": 8, "cuda": 128}
PRODUCT = "matrix product"

Build = Callable[[str, Workload, ModuleType | None], Variant | Absent]


@dataclass
class Facts:
    """What is measured of a variant.

    Attributes:
        loss: On the weights that all start from, and the first mask.
        is_simmim: Whether the loss may be compared.
        flops: Of the forward and backward pass.
        memory_bytes: See `cost.memory`.
        first_s: Of the first forward pass and the first step.
        prepare_s: Of bringing a mask into the variant's form, which a loader does; the median.
        seconds: Of a step, in every round.
        compiled: Graphs compiled anew, in every round.
    """

    loss: float
    is_simmim: bool
    flops: int
    memory_bytes: int
    first_s: float
    prepare_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    compiled: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured of one workload.

    Attributes:
        precision: Of the workload.
        batch_size: Of the workload.
        variants: Those that took part.
        absent: Reasons of those that did not.
        product_rate: Operations per second in a matrix product.
        product_s: Of every round.
    """

    precision: str
    batch_size: int
    variants: dict[str, Facts]
    absent: dict[str, str]
    product_rate: float
    product_s: list[float]

    @property
    def reference(self) -> str:
        """What ratios and differences are relative to."""
        return next(name for name in (*REFERENCES, *self.variants) if name in self.variants)


def compare(
    workload: Workload,
    names: Sequence[str],
    original: ModuleType | None,
    *,
    rounds: int,
    steps: int = 1,
    build: Build = build,
) -> Comparison:
    """Measures variants in turn; a first round does not count.

    Args:
        workload: What all are given.
        names: Of the variants.
        original: See `variants.build`.
        rounds: Turns of each.
        steps: In a turn.
        build: Makes a variant of its name, the workload and the original.
    """
    present: dict[str, tuple[Variant, Facts]] = {}
    absent: dict[str, str] = {}
    for name in names:
        entered = enter(name, workload, original, build)
        if isinstance(entered, Absent):
            absent[name] = entered.reason
        else:
            present[name] = entered
    masks = [workload.mask(number) for number in range((rounds + 1) * steps)]
    product = Product(workload.precision, workload.device)
    turns: dict[str, Callable[[int], object]] = {
        name: _turns(*entered, masks, steps) for name, entered in present.items()
    }
    turns[PRODUCT] = lambda _: product()
    seconds = {
        name: values[1:] for name, values in alternate(turns, rounds + 1, workload.device).items()
    }
    product_s = seconds.pop(PRODUCT)
    facts = {name: found for name, (_, found) in present.items()}
    for name, found in facts.items():
        found.seconds.extend(value / steps for value in seconds[name])
        del found.compiled[0]
    rate = product.rate(product_s)
    return Comparison(workload.precision, len(workload.images), facts, absent, rate, product_s)


def enter(
    name: str, workload: Workload, original: ModuleType | None, build: Build = build
) -> tuple[Variant, Facts] | Absent:
    """Builds a variant and lets it do its first step; see `admit`."""
    others = allocated_bytes(workload.device)
    variant = build(name, workload, original)
    if isinstance(variant, Absent):
        return variant
    facts = admit(variant, others)
    return facts if isinstance(facts, Absent) else (variant, facts)


def admit(variant: Variant, others: int = 0) -> Facts | Absent:
    """Does the first step of a variant, and measures all but the time of the later ones.

    A variant that does not fit into memory or does not compile is left out, with the reason.

    Args:
        variant: Just built.
        others: See `cost.peak_bytes`.
    """
    workload = variant.workload
    mask = variant.prepare(workload.mask(0))
    variant.model.train(workload.drop_path_rate == 0)  # else no two losses would be comparable
    losses: list[Tensor] = []
    try:
        first_s = time_s(lambda: losses.append(variant.loss(mask).detach()), workload.device)
        variant.model.train()
        flops = count_flops(variant, mask)
        first_s += time_s(lambda: variant.step(mask), workload.device)
        kept = memory(variant, mask, others)
        return Facts(losses[0].item(), variant.is_simmim, flops, kept, first_s)
    except torch.OutOfMemoryError:
        return Absent(variant.name, f"out of memory with {len(workload.images)} images")
    except TorchDynamoException as error:
        return Absent(variant.name, f"does not compile: {' '.join(str(error).split())[:200]}")


def _turns(
    variant: Variant, facts: Facts, masks: Sequence[Tensor], steps: int
) -> Callable[[int], None]:
    prepared: list[Prepared] = []

    def prepare(number: int) -> None:
        prepared.append(variant.prepare(masks[number]))

    device = variant.images.device
    seconds = [time_s(partial(prepare, number), device) for number in range(len(masks))]
    facts.prepare_s = statistics.median(seconds)

    def turn(number: int) -> None:
        before = counters["stats"]["unique_graphs"]
        for mask in prepared[number * steps : (number + 1) * steps]:
            variant.step(mask)
        facts.compiled.append(counters["stats"]["unique_graphs"] - before)

    return turn
