"""What several compute threads cost beside other work, by how they wait for one another.

python -m benchmarks.step.threads --busy 0 2     # 0 on a machine where nothing else runs

For each way of waiting a process stands ready; they do training steps in turn, A B C A B C, so that
other work meets all alike. `--busy N` starts N processes that compute without end. The ways differ
in the environment alone; "as torch is" sets nothing.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.step.command import positive
from benchmarks.step.timing import ratios, spread
from benchmarks.tables import describe_machine, header, table, write_json

WAYS = {
    "as torch is": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spins 100": {"GOMP_SPINCOUNT": "100"},
    "spins 1000": {"GOMP_SPINCOUNT": "1000"},
    "spins 10000": {"GOMP_SPINCOUNT": "10000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
REFERENCE = "as torch is"
OF_OPENMP = ("OMP_", "GOMP_", "KMP_")


class Stepper:
    """A process that does training steps when told to, in its own environment."""

    def __init__(self, environment: Mapping[str, str], words: Sequence[str]) -> None:
        """Starts it and waits until it is ready.

        Args:
            environment: Added to that of this process, less what this one says of OpenMP.
            words: Arguments of `benchmarks.step.on_request`.
        """
        clean = {key: value for key, value in os.environ.items() if not key.startswith(OF_OPENMP)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.step.on_request", *words],
            env={**clean, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.num_threads = int(self._answer()[1])

    def seconds(self, num_steps: int) -> float:
        """Returns how long some steps take."""
        assert self._process.stdin is not None
        print(num_steps, file=self._process.stdin, flush=True)
        return float(self._answer()[0])

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _answer(self) -> list[str]:
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if not words:
            raise SystemExit("a process that should do training steps ended")
        return words


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keeps cores busy with this many processes."""
    processes = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(steppers: Mapping[str, Stepper], rounds: int, num_steps: int) -> dict[str, list[float]]:
    """Returns the seconds of a step, by way of waiting and round."""
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(rounds):
        for name, stepper in steppers.items():
            seconds[name].append(stepper.seconds(num_steps) / num_steps)
    return seconds


def report(results: Mapping[int, Mapping[str, Sequence[float]]], threads: Mapping[str, int]) -> str:
    """Writes the table: seconds of a step, and how many times as fast as torch's own way."""
    rows = []
    for number, seconds in results.items():
        gains = ratios(seconds, REFERENCE)
        for name, values in seconds.items():
            found = spread(values)
            counts = str(threads[name]), str(number)
            times = f"{found.median:.2f}", f"{found.lowest:.2f}-{found.highest:.2f}"
            rows.append([name, *counts, *times, f"{gains[name]:.2f}"])
    titles = ["waiting", "threads", "busy processes", "s per step", "range", "times as fast"]
    return table(titles, rows)


def main() -> None:
    """Prints the table, and with `--json` writes the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", type=int, nargs="+", default=[0], help="processes beside it")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], metavar="WAY")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=3, help="of a round")
    parser.add_argument("--model", default="swin_nano")
    parser.add_argument("--batch-size", type=positive, default=32)
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    args = parser.parse_args()
    machine: dict[str, Any] = describe_machine(torch.device("cpu"))
    print(f"{header(machine)}; load before {os.getloadavg()[0]:.1f}", flush=True)
    results = {}
    with ExitStack() as stack:
        steppers = {}
        for name in dict.fromkeys([REFERENCE, *args.ways]):
            steppers[name] = Stepper(WAYS[name], [args.model, str(args.batch_size)])
            stack.callback(steppers[name].close)
        for number in args.busy:
            with busy(number):
                results[number] = measure(steppers, args.rounds, args.steps)
        threads = {name: stepper.num_threads for name, stepper in steppers.items()}
    print(f"\n{report(results, threads)}")
    write_json(args.json, {"machine": machine, "seconds": results})


if __name__ == "__main__":
    main()
