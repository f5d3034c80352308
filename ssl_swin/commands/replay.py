"""`ssl-swin replay`: a step that was not finite, once more, to see where it breaks."""

import argparse
import math
from typing import TYPE_CHECKING

from ssl_swin.arguments import Count
from ssl_swin.commands.parsing import path, text, value_of

if TYPE_CHECKING:
    from ssl_swin.training.health.replay import GroupNorm, ReplayedBatch

MOST_SHOWN = 8
ROUNDING = 1e-4  # relative


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "replay",
        help="repeat a step that was not finite, and find where it breaks",
        description="Repeats a step that a run left out because its loss or gradient was not "
        "finite: the same weights, images, masks, mixing and dropped paths, up to the gradients. "
        "Prints the loss of each batch and of each image alone, the first module whose output is "
        "not finite, and the gradient of each group of parameters. Of a run on several processes "
        "the batches of all of them are repeated here, one after another, and their gradients "
        "added as the run does.",
        usage="%(prog)s [options] RUN [settings ...]",
    )
    parser.add_argument("run_folder", type=path, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "settings", nargs="*", help="what differs on this machine, as data.root=elsewhere"
    )
    parser.add_argument(
        "--step", type=value_of(Count), help="which step; the last recorded one if not given"
    )
    parser.add_argument("--device", type=text, help="where to compute; a GPU if there is one")
    return parser


def run(args: argparse.Namespace) -> None:
    """Repeats the step and prints what was found."""
    from ssl_swin.jobs.replay import replay
    from ssl_swin.launch.resolvers import auto_device

    device = args.device or auto_device()
    record, weights, found = replay(args.run_folder, args.step, args.settings, device=device)
    print(
        f"step {record.step:,} of {args.run_folder}: {record.reason}\n"
        f"weights {weights}; {record.precision} on {device}"
    )
    for batch in found.batches:
        print("\n".join(_of_batch(batch)))
    print(
        f"gradient norm {found.gradient_norm:.6g}"
        f"{_compared(found.gradient_norm, record.gradient_norm)}; by group of parameters, before "
        "clipping:"
    )
    for group in found.groups:
        print(_of_group(group))


def _of_batch(batch: "ReplayedBatch") -> list[str]:
    recorded = batch.recorded
    same = _compared(batch.loss, recorded.loss)
    lines = [f"rank {recorded.rank}, batch {recorded.number}: loss {batch.loss:.6g}{same}"]
    if batch.culprit is None:
        lines.append("  every output of the forward pass is finite")
    else:
        name, kind, inputs_are_finite = batch.culprit
        inputs = "finite" if inputs_are_finite else "not finite"
        lines.append(
            f"  the first output that is not finite is that of {name or 'the objective itself'} "
            f"({kind}); its inputs are {inputs}"
        )
    return lines + _of_images(batch)


def _of_images(batch: "ReplayedBatch") -> list[str]:
    if batch.sample_losses is None:
        return ["  this objective has no loss of one image alone"]
    named = list(zip(batch.sample_losses, batch.recorded.names, strict=True))
    bad = [pair for pair in named if not math.isfinite(pair[0])]
    rest = sorted((pair for pair in named if math.isfinite(pair[0])), reverse=True)
    shown = (bad + rest)[:MOST_SHOWN]
    lines = [
        f"  each image alone, without dropped paths: {len(bad)} of {len(named)} not finite"
        + (f"; the first {MOST_SHOWN} of them and the largest:" if len(named) > MOST_SHOWN else "")
    ]
    return lines + [f"    {loss:<12.6g} {name}" for loss, name in shown]


def _of_group(group: "GroupNorm") -> str:
    line = f"  {group.group:<20} {group.norm:<12.6g}"
    if not group.not_finite:
        return line.rstrip()
    more = len(group.not_finite) - 3
    return f"{line} not finite: {', '.join(group.not_finite[:3])}" + (
        f" and {more} more" if more > 0 else ""
    )


def _compared(value: float, recorded: str | None) -> str:
    """Say how a number differs from the run's, which older records lack."""
    if recorded is None:
        return ""
    expected = float.fromhex(recorded)
    if value.hex() == recorded:
        return ", as in the run, to the bit"
    rounded = math.isclose(value, expected, rel_tol=ROUNDING)
    return f", in the run {expected:.6g}" + (", the same to rounding" if rounded else "")
