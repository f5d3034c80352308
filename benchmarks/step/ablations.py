"""Single choices of the step, each against what else could have been: seconds in turn, and a ratio.

python -m benchmarks.step.ablations --model swin_t --batch-size 8

An alternative is another value of `kernels`, or a function that is replaced for the length of its
turn. Above 1, the choice that was made is the faster one.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import AdamW

from benchmarks.step.command import make_parser, positive, run
from benchmarks.step.comparison import BATCH_SIZES
from benchmarks.step.timing import alternate, ratios, spread
from benchmarks.step.variants import Absent, Variant, build
from benchmarks.step.workload import Workload, make_workload
from benchmarks.tables import table
from ssl_swin.encoders.kernels import Kernels, use_kernels
from ssl_swin.launch.kernels import kernels_for

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
    values: dict[str, Any] = {}  # noqa: RUF012 - never changed
    kernel: str = ""


BASE = kernels_for({}, torch.device("cpu"))  # on a GPU too, to compare with
PLAIN, COMPILED = ("dense", "sparse"), ("dense_compiled", "sparse_compiled")
KERNELS: dict[str, tuple[tuple[Any, ...], str]] = {  # other values, and variants to try them on
    "attention": (("fused", "flex"), "dense sparse"),
    "mlp": (("keep",), "dense sparse"),
    "decoder_attention": (("fused",), "sparse"),
    "patch_embedding": (("conv", "channels_last"), "dense"),
    "head": (("masked",), "dense"),
    "optimizer": (("foreach",), "dense"),
    "bin_multiple": ((16,), "sparse"),
    "compile_mode": (("reduce-overhead", "max-autotune-no-cudagraphs"), " ".join(COMPILED)),
}

OF_GPUS = ("flex", "max-autotune-no-cudagraphs")  # on a CPU no backward pass, and many minutes


def kernel_ideas(objective: str, variant: Variant) -> Iterator[Idea]:
    """Whole steps with one kernel as it is or another."""
    for name, (others, objectives) in KERNELS.items():
        for other in others if objective in objectives.split() else ():
            if other in OF_GPUS and variant.images.device.type == "cpu":
                continue
            values = {CHOSEN: getattr(BASE, name), OTHER: other}
            turns: dict[str, Turn] = {
                turn: kernel_turn(variant, replace(BASE, **{name: value}))
                for turn, value in values.items()
            }
            text = f"{objective}: {name.replace('_', ' ')}, {values[CHOSEN]} not {other}"
            yield Idea(text, turns, values, name)


def kernel_turn(variant: Variant, kernels: Kernels) -> Turn:
    """Whole steps with these kernels, an optimiser that is made for them, and a mask's plan."""
    use_kernels(variant.model, kernels)
    mask = variant.prepare(variant.workload.mask(0))
    groups = [
        {name: value for name, value in group.items() if name not in ("fused", "foreach")}
        for group in variant.optimizer.param_groups
    ]
    is_fused = kernels.optimizer == "fused"
    optimizer = AdamW(groups, fused=is_fused, foreach=not is_fused)
    variant = replace(variant, optimizer=optimizer)
    use_kernels(variant.model, BASE)

    def turn(_: int) -> None:
        use_kernels(variant.model, kernels)
        variant.step(mask)
        use_kernels(variant.model, BASE)

    return turn


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


def ideas(workload: Workload, variants: Sequence[str]) -> Iterator[Idea]:
    """Names each choice of these variants and gives its turns."""
    for objective in variants:
        variant = build(objective, workload, None)
        assert not isinstance(variant, Absent)
        variant.model.train()
        yield from kernel_ideas(objective, variant)
        if objective not in COMPILED:
            text = f"{objective}: gathers of whole rows, not along dimension 1"
            yield Idea(text, whole_rows_turns(variant))


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
        for name, turns, values, kernel in ideas(workload, args.variants):
            found = {"precision": precision, "choice": name, "kernel": kernel, "values": values}
            try:
                timed = alternate(turns, args.rounds + 1, workload.device)
            except Exception as error:  # of one choice, which must not cost the others
                results.append({**found, "error": str(error)})
                lines.append([name, "", "fails", type(error).__name__])
                continue
            seconds = {turn: each[1:] for turn, each in timed.items()}
            results.append({**found, "seconds": seconds})
            medians = [f"{1e3 * spread(seconds[turn]).median:.1f}" for turn in (CHOSEN, OTHER)]
            lines.append([name, *medians, f"{ratios(seconds, OTHER)[CHOSEN]:.2f}"])
        print(f"\n{args.model}, {len(workload.images)} images, {precision}")
        print(table(("choice", "chosen ms", "other ms", "times as fast"), lines))
    return results


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    """Prints a table per precision, and with `--json` writes the numbers; returns them too."""
    parser = make_parser(__doc__, has_variants=False)
    parser.add_argument("--model", default="swin_nano", help="a Swin of conf/model")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=(*PLAIN, *COMPILED),
        default=PLAIN,
        help="compiled ones try modes of torch.compile",
    )
    parser.add_argument("--batch-size", type=positive, help="default: 8 on a CPU, 128 on a GPU")
    parser.add_argument("--rounds", type=positive, default=5, help="turns, of which the median")
    return run(parser, measure, words)


if __name__ == "__main__":
    main()
