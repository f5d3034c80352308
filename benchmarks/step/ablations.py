"""Single choices of the step, each against what else could have been: seconds in turn, and a ratio.

python -m benchmarks.step.ablations --model swin_t --batch-size 8

An alternative replaces one function of `ssl_swin.encoders.windows` for the length of its turn, or
does one part of the step by itself. Above 1, the choice that was made is the faster one.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
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
from ssl_swin.encoders.windows.layout import WindowLayout
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask

CHOSEN, OTHER = "chosen", "other"
Turn = Callable[[int], object]


def fused_attention(
    attn: Any, tokens: Tensor, mask: Tensor | None = None, *, layout: WindowLayout
) -> Tensor:
    """`WindowAttention.forward` of V1 by torch's fused attention."""
    groups = layout.gather(tokens)
    heads = (3, attn.num_heads, tokens.shape[-1] // attn.num_heads)
    qkv = attn.project(groups).view(*groups.shape[:3], *heads)
    query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)
    with torch.autocast(tokens.device.type, enabled=False):
        bias = layout.bias(attn.window_bias(qkv.dtype))
        bias = bias.expand(*query.shape[:2], -1, -1, -1)
        mixed = F.scaled_dot_product_attention(
            query.flatten(0, 1),
            key.flatten(0, 1),
            value.flatten(0, 1),
            attn_mask=bias.flatten(0, 1),
            scale=attn.scale,
        ).view(query.shape)
    mixed = mixed.transpose(2, 3).reshape(groups.shape)
    projected: Tensor = attn.proj(layout.scatter(mixed, tokens))
    return projected


REPLACED: dict[str, tuple[str, Callable[..., Any]]] = {
    "attention by products, not torch's fused one": (
        "ssl_swin.encoders.windows.attention.WindowAttention.forward",
        fused_attention,
    ),
    "GELU computed again, not kept": (
        "ssl_swin.encoders.windows.blocks.gelu_linear",
        lambda hidden, weight, bias: F.linear(F.gelu(hidden), weight, bias),
    ),
    "gathers of whole rows, not along dimension 1": (
        "ssl_swin.encoders.windows.layout._rows",
        lambda tokens, index: tokens.index_select(1, index),
    ),
}


def replaced_turns(variant: Variant, target: str, other: Callable[..., Any]) -> dict[str, Turn]:
    """Whole steps, with one function as it is or replaced."""
    mask = variant.prepare(variant.workload.mask(0))

    def turn(context: contextlib.AbstractContextManager[Any]) -> None:
        with context:
            variant.step(mask)

    return {
        CHOSEN: lambda _: turn(contextlib.nullcontext()),
        OTHER: lambda _: turn(patch(target, other)),
    }


def adamw_turns(variant: Variant) -> dict[str, Turn]:
    """The optimiser alone."""
    parameters = list(variant.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    fused, default = AdamW(parameters, fused=True), AdamW(parameters)
    return {CHOSEN: lambda _: fused.step(), OTHER: lambda _: default.step()}


def decoder_turns(variant: Variant) -> dict[str, Turn]:
    """Forward and backward pass of the first block of the sparse decoder."""
    model: Any = variant.model
    block, cells = model.decoder.blocks[0], model.decoder.pos_embed.shape[1]
    width = model.decoder.pos_embed.shape[2]
    tokens = torch.randn(len(variant.images), cells, width, device=variant.images.device)

    def turn(is_fused: bool) -> None:
        block.attn.fused_attn = is_fused
        with autocast(variant.workload):
            loss = block(tokens).float().sum()
        loss.backward()

    return {CHOSEN: lambda _: turn(False), OTHER: lambda _: turn(True)}


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


def ideas(workload: Workload) -> Iterator[tuple[str, dict[str, Turn]]]:
    """Names each choice and gives its turns."""
    for objective in ("dense", "sparse"):
        variant = build(objective, workload, None)
        assert not isinstance(variant, Absent)
        variant.model.train()
        for name, (target, other) in REPLACED.items():
            yield f"{objective}: {name}", replaced_turns(variant, target, other)
        if objective == "dense":
            yield "dense: head on all cells, not masked ones alone", head_turns(variant)
            yield "AdamW fused, not torch's default", adamw_turns(variant)
        elif workload.device.type == "cpu":
            yield "sparse: decoder's block by products, not fused", decoder_turns(variant)


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
        if workload.encoder.version != 1:
            raise UserError(f"these choices are compared for Swin V1, and {args.model} is V2")
        lines = []
        for name, turns in ideas(workload):
            timed = alternate(turns, args.rounds + 1, workload.device)
            seconds = {turn: values[1:] for turn, values in timed.items()}
            results.append({"precision": precision, "choice": name, "seconds": seconds})
            medians = [f"{1e3 * spread(seconds[turn]).median:.1f}" for turn in (CHOSEN, OTHER)]
            lines.append([name, *medians, f"{ratios(seconds, OTHER)[CHOSEN]:.2f}"])
        print(f"\n{args.model}, {len(workload.images)} images, {precision}")
        print(table(("choice", "chosen ms", "other ms", "times as fast"), lines))
    return results


def main(words: list[str] | None = None) -> None:
    """Prints a table per precision, and with `--json` writes the numbers."""
    parser = make_parser(__doc__, has_variants=False)
    parser.add_argument("--model", default="swin_nano", help="a Swin V1 of conf/model")
    parser.add_argument("--batch-size", type=positive, help="default: 8 on a CPU, 128 on a GPU")
    parser.add_argument("--rounds", type=positive, default=5, help="turns, of which the median")
    run(parser, measure, words)


if __name__ == "__main__":
    main()
