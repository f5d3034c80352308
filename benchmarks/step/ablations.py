"""Single choices of the step, each against what else could have been: seconds in turn, and a ratio.

python -m benchmarks.step.ablations --model swin_t --batch-size 8

An alternative is another value of `kernels`, a function that is replaced for the length of its
turn, or one part of the step by itself. Above 1, the choice that was made is the faster one.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from benchmarks.step.command import make_parser, positive, run
from benchmarks.step.comparison import BATCH_SIZES
from benchmarks.step.timing import alternate, ratios, spread
from benchmarks.step.variants import Absent, Variant, build
from benchmarks.step.workload import Workload, autocast, make_workload
from benchmarks.tables import table
from ssl_swin.encoders.kernels import Kernels, use_kernels
from ssl_swin.masking import expand_mask

CHOSEN, OTHER = "chosen", "other"
Turn = Callable[[int], object]


class Idea(NamedTuple):
    """A choice, and what else could have been.

    Attributes:
        name: For a reader.
        turns: By `CHOSEN` and `OTHER`.
        values: Of the kernel that differs, likewise; empty where it is none.
        kernel: Its name among `Kernels`; "" where none differs.
    """

    name: str
    turns: dict[str, Turn]
    values: dict[str, str] = {}  # noqa: RUF012 - never changed
    kernel: str = ""


BASE = Kernels(attention="products", mlp="recompute", decoder_attention="products")
KERNELS: dict[str, tuple[str, str]] = {  # the other value, and the objective that it is tried on
    "attention": ("fused", "dense sparse"),
    "mlp": ("keep", "dense sparse"),
    "decoder_attention": ("fused", "sparse"),
}


def kernel_ideas(objective: str, variant: Variant) -> Iterator[Idea]:
    """Whole steps with one kernel as it is or another."""
    mask = variant.prepare(variant.workload.mask(0))

    def turn(kernels: Kernels) -> None:
        use_kernels(variant.model, kernels)
        variant.step(mask)
        use_kernels(variant.model, BASE)

    for name, (other, objectives) in KERNELS.items():
        if objective in objectives.split():
            values = {CHOSEN: getattr(BASE, name), OTHER: other}
            changed = replace(BASE, **{name: other})
            turns: dict[str, Turn] = {
                CHOSEN: lambda _: turn(BASE),
                OTHER: lambda _, changed=changed: turn(changed),  # type: ignore[misc]
            }
            text = f"{objective}: {name.replace('_', ' ')}, {values[CHOSEN]} not {other}"
            yield Idea(text, turns, values, name)


def whole_rows_turns(variant: Variant) -> dict[str, Turn]:
    """Whole steps that gather whole rows, or along dimension 1."""
    mask = variant.prepare(variant.workload.mask(0))

    def turn(context: contextlib.AbstractContextManager[Any]) -> None:
        with context:
            variant.step(mask)

    target = "ssl_swin.encoders.windows.layout._rows"
    return {
        CHOSEN: lambda _: turn(contextlib.nullcontext()),
        OTHER: lambda _: turn(patch(target, along_dimension_1)),
    }


def along_dimension_1(tokens: Tensor, index: Tensor) -> Tensor:
    """Gathers tokens (B, N, C) as torch does it."""
    return tokens.index_select(1, index)


def adamw_turns(variant: Variant) -> dict[str, Turn]:
    """The optimiser alone."""
    parameters = list(variant.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    fused, default = AdamW(parameters, fused=True), AdamW(parameters)
    return {CHOSEN: lambda _: fused.step(), OTHER: lambda _: default.step()}


def head_turns(variant: Variant) -> dict[str, Turn]:
    """Forward and backward pass of the dense head, on every cell as it is, or on masked ones."""
    model: Any = variant.model
    rows, columns = model.encoder.windows.grid
    hidden = expand_mask(variant.workload.mask(0), (rows, columns)).flatten(1)
    shape = (len(variant.images), model.encoder.num_features, rows, columns)
    features = torch.randn(shape, device=variant.images.device, requires_grad=True)
    head = model.decoder[0]

    def turn(masked_alone: bool) -> None:
        with autocast(variant.workload):
            if masked_alone:
                shown = features.flatten(2).transpose(1, 2)[hidden]
                painted = F.linear(shown, head.weight.flatten(1), head.bias)
            else:
                painted = model.decoder(features)
        painted.float().abs().mean().backward()  # type: ignore[no-untyped-call]

    return {CHOSEN: lambda _: turn(False), OTHER: lambda _: turn(True)}


def ideas(workload: Workload) -> Iterator[Idea]:
    """Names each choice and gives its turns."""
    for objective in ("dense", "sparse"):
        variant = build(objective, workload, None)
        assert not isinstance(variant, Absent)
        variant.model.train()
        yield from kernel_ideas(objective, variant)
        text = f"{objective}: gathers of whole rows, not along dimension 1"
        yield Idea(text, whole_rows_turns(variant))
        if objective == "dense":
            yield Idea("dense: head on all cells, not masked ones alone", head_turns(variant))
            yield Idea("AdamW fused, not torch's default", adamw_turns(variant))


def measure(args: argparse.Namespace, _: ModuleType | None) -> list[dict[str, Any]]:
    """Measures every choice in every precision; prints a table each."""
    results = []
    for precision in args.precision:
        workload = make_workload(
            args.model,
            batch_size=args.batch_size or BATCH_SIZES[args.device.type],
            device=args.device,
            precision=precision,
            seed=args.seed,
        )
        lines = []
        for name, turns, values, kernel in ideas(workload):
            timed = alternate(turns, args.rounds + 1, workload.device)
            seconds = {turn: each[1:] for turn, each in timed.items()}
            found = {"precision": precision, "choice": name, "seconds": seconds}
            results.append({**found, "kernel": kernel, "values": values})
            medians = [f"{1e3 * spread(seconds[turn]).median:.1f}" for turn in (CHOSEN, OTHER)]
            lines.append([name, *medians, f"{ratios(seconds, OTHER)[CHOSEN]:.2f}"])
        print(f"\n{args.model}, {len(workload.images)} images, {precision}")
        print(table(("choice", "chosen ms", "other ms", "times as fast"), lines))
    return results


def main(words: list[str] | None = None) -> None:
    """Prints a table per precision, and with `--json` writes the numbers."""
    parser = make_parser(__doc__, has_variants=False)
    parser.add_argument("--model", default="swin_nano", help="a Swin of conf/model")
    parser.add_argument("--batch-size", type=positive, help="default: 8 on a CPU, 128 on a GPU")
    parser.add_argument("--rounds", type=positive, default=5, help="turns, of which the median")
    run(parser, measure, words)


if __name__ == "__main__":
    main()
