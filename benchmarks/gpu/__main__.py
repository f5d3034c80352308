"""The first hours on a GPU: is it right, how fast is it, what is worth changing, in order of worth.

python -m benchmarks.gpu --minutes 25 --out gpu_results --reference PATH --data SHARDS

Each part gets its share of the time and is ended when that is over; what an earlier one has not
used is for those after it. The results file is written after each, and the same command does what
is left, also on a machine that has nothing but this folder. PATH is a checkout of microsoft/SimMIM,
SHARDS a folder of shards with labels; without them the step is compared with timm's and images are
drawn. `parts.yaml` has the commands. --rehearse does all of it on a CPU at toy sizes, in minutes.

Exit code 0: all parts are done. 1: one has failed. 3: some are left for want of time.
143: SIGTERM has ended it, with the part that ran.
"""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.child import exiting_on_sigterm, run_limited
from benchmarks.gpu.parts import Part, load_parts, slice_s
from benchmarks.gpu.results import Found, Results, clocks
from benchmarks.step.workload import pick_device
from benchmarks.tables import describe_machine
from ssl_swin.errors import UserError

ROOT = Path(__file__).parents[2]
FAILED, LEFT = 1, 3


def ask(part: Part, args: argparse.Namespace, limit_s: float) -> Found:
    """Runs a part's command, and returns what came of it."""
    numbers, output = args.out / f"{part.name}.json", args.out / f"{part.name}.txt"
    numbers.unlink(missing_ok=True)
    words = part.command(
        {
            "{json}": [str(numbers)],
            "{out}": [str(args.out / part.name)],
            "{reference}": [] if args.reference is None else ["--reference", str(args.reference)],
            "{data}": [] if args.data is None else ["--data", str(args.data)],
        }
    )
    ended = run_limited(words, folder=ROOT, output=output, limit_s=limit_s, PYTHONPATH=str(ROOT))
    return Found(
        state="time is up" if ended.code is None else "done" if ended.code == 0 else "failed",
        seconds=round(ended.seconds, 1),
        command=shlex.join(["python", "-m", *words]),
        output=output.read_text(errors="replace"),
        numbers=json.loads(numbers.read_text()) if numbers.is_file() else None,
        clocks=clocks(),
    )


def ask_all(parts: Sequence[Part], results: Results, args: argparse.Namespace) -> None:
    """Runs what is not done yet, within the time; says how each part has ended."""
    end = time.monotonic() + 60 * args.minutes
    left = [part for part in parts if not results.is_done(part)]
    for part in parts:
        if part not in left:
            print(f"{part.name}: done before", flush=True)
    for number, part in enumerate(left):
        limit_s = slice_s(left[number:], end - time.monotonic())
        if limit_s == 0:
            print(f"{part.name}: not begun, the time is up", flush=True)
            continue
        print(f"{part.name}: {part.title} At most {limit_s:.0f} s", flush=True)
        found = ask(part, args, limit_s)
        results.add(part, found)
        results.write_report(parts)
        print(f"{part.name}: {found.state}, {found.seconds:.0f} s", flush=True)


def exit_code(parts: Sequence[Part], results: Results) -> int:
    """Returns 0 if all parts are done, another if not."""
    if any(found.state == "failed" for found in results.parts.values()):
        return FAILED
    return 0 if all(map(results.is_done, parts)) else LEFT


def facts(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what results depend on besides the code.

    Raises:
        UserError: If there is no GPU, and this is no rehearsal.
    """
    if args.rehearse:
        device = torch.device("cpu")
    elif torch.cuda.is_available():
        device = pick_device("cuda")
    else:
        raise UserError("torch sees no CUDA GPU here: --rehearse does all of it on a CPU")
    return {**describe_machine(device), "rehearsal": args.rehearse, "clocks": clocks()}


def main(words: Sequence[str] | None = None) -> None:
    """Asks all that is not known yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25, help="for all that is left")
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder for results")
    parser.add_argument("--reference", type=Path, help="a checkout of microsoft/SimMIM")
    parser.add_argument("--data", type=Path, help="a folder of shards with labels")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at toy sizes")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="only these, again if done")
    args = parser.parse_args(words)
    try:
        parts = load_parts(rehearsal=args.rehearse)
        for name in ("out", "reference", "data"):
            if getattr(args, name) is not None:
                setattr(args, name, getattr(args, name).resolve())
        chosen = chosen_parts(parts, args.parts)
        args.out.mkdir(parents=True, exist_ok=True)
        results = Results.continued(args.out, facts(args))
    except UserError as error:
        parser.exit(2, f"{error}\n")
    for part in chosen if args.parts else ():
        results.parts.pop(part.name, None)
    with exiting_on_sigterm():
        ask_all(chosen, results, args)
    print(f"all of it: {results.write_report(parts)}")
    parser.exit(exit_code(chosen, results))


def chosen_parts(parts: list[Part], names: Sequence[str] | None) -> list[Part]:
    """Returns the parts of these names, or all.

    Raises:
        UserError: If one is not known.
    """
    known = {part.name: part for part in parts}
    for name in names or ():
        if name not in known:
            raise UserError(f"there is no part {name}; there are: {', '.join(known)}")
    return [known[name] for name in names] if names else parts


if __name__ == "__main__":
    main()
