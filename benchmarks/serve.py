"""Requests per second of `ssl-swin serve`, with batching and without, under several clients.

python -m benchmarks.serve                                   # a small Swin, on this processor
python -m benchmarks.serve --model swin_t --device cuda --clients 64

Two servers of one network with random weights, each in a process of its own, are asked in turn by
clients that keep their connections and send the next image when they have the answer to the last.
The clients run on this machine too, and take their share of its cores.
"""

import argparse
import http.client
import io
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.step.command import positive
from benchmarks.tables import describe_machine, header, table, write_json
from ssl_swin.encoders.swin import swin
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import save_classifier

MODELS: dict[str, dict[str, Any]] = {
    "swin_nano": {"img_size_px": 96, "window_size": 6, "embed_dim": 48, "depths": (2, 2, 2),
                  "num_heads": (2, 4, 8)},
    "swin_t": {"img_size_px": 224, "window_size": 7, "embed_dim": 96, "depths": (2, 2, 6, 2),
               "num_heads": (3, 6, 12, 24)},
}  # fmt: skip
NUM_CLASSES = 10
PHOTO_PX = (375, 500)
NUM_PHOTOS = 16
START_S, ANSWER_S = 300.0, 120.0
UNBATCHED = ("--batch-size", "1", "--max-wait-ms", "0")


class Answer(NamedTuple):
    """How one request went."""

    status: int
    seconds: float


class Round(NamedTuple):
    """What the clients saw of a server in one round.

    Attributes:
        requests_per_s: Answered with 200.
        p50_ms: Median time to an answer.
        p99_ms: 99th percentile of it.
        images_per_batch: Mean.
        failures: Requests with another answer than 200.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    images_per_batch: float
    failures: int


def write_classifier(folder: Path, model: str) -> None:
    """Writes a classifier with random weights."""
    torch.manual_seed(0)
    network = Classifier(swin(version=1, **MODELS[model]), num_classes=NUM_CLASSES)
    names = [str(label) for label in range(NUM_CLASSES)]
    save_classifier(folder, network, classes=names, mean=[0.5] * 3, std=[0.25] * 3, card="")


def photos() -> list[bytes]:
    """Draws JPEG files as large as those of ImageNet: noise, blurred."""
    files = []
    for seed in range(NUM_PHOTOS):
        noise = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize(PHOTO_PX[::-1], Image.Resampling.BICUBIC).save(file, "jpeg")
        files.append(file.getvalue())
    return files


@contextmanager
def server(folder: Path, name: str, options: Sequence[str]) -> Iterator[int]:
    """Starts a server and gives its port."""
    log = folder / f"{name}.txt"
    words = ["-m", "ssl_swin", "serve", str(folder / "classifier"), "--port", "0", *options]
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, *words], stdout=output, stderr=output)
    try:
        end_s = time.monotonic() + START_S
        while not (found := re.search(r"listening on \S+:(\d+);", log.read_text())):
            if process.poll() is not None or time.monotonic() > end_s:
                sys.exit(log.read_text())
            time.sleep(0.1)
        yield int(found[1])
    finally:
        process.terminate()
        process.wait()


def ask(port: int, files: Sequence[bytes], *, clients: int, seconds: float) -> list[Answer]:
    """Lets clients send images, each one after another."""
    answers: list[list[Answer]] = [[] for _ in range(clients)]
    end_s = time.perf_counter() + seconds

    def work(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
        turn = number
        while (start_s := time.perf_counter()) < end_s:
            image = files[turn % len(files)]
            connection.request("POST", "/predict", image, {"content-type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
            answers[number].append(Answer(response.status, time.perf_counter() - start_s))
            turn += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answer for each in answers for answer in each]


def batches(port: int) -> tuple[float, float]:
    """Asks a server for the images that it has computed, and in how many batches."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    images, number = (
        float(re.findall(rf"^ssl_swin_batch_images_{name} (\S+)$", text, re.MULTILINE)[0])
        for name in ("sum", "count")
    )
    return images, number


def summary(answers: Sequence[Answer], wall_s: float, images: float, batches: float) -> Round:
    """Sums up what the clients of a round saw."""
    times_ms = [1000 * answer.seconds for answer in answers if answer.status == 200]
    return Round(
        len(times_ms) / wall_s,
        float(np.percentile(times_ms, 50)),
        float(np.percentile(times_ms, 99)),
        images / max(1.0, batches),
        len(answers) - len(times_ms),
    )


def measure(args: argparse.Namespace) -> dict[str, dict[int, list[Round]]]:
    """Asks both servers in turn, with each number of clients."""
    common = ("--device", args.device, "--workers", str(args.workers))
    batching = ("--batch-size", str(args.batch_size), "--max-wait-ms", str(args.max_wait_ms))
    kinds = {"with batching": (*common, *batching), "without": (*common, *UNBATCHED)}
    files = photos()
    rounds: dict[str, dict[int, list[Round]]] = {
        kind: {clients: [] for clients in args.clients} for kind in kinds
    }
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        write_classifier(folder / "classifier", args.model)
        ports = {
            kind: servers.enter_context(server(folder, kind.replace(" ", "_"), options))
            for kind, options in kinds.items()
        }
        for port in ports.values():
            ask(port, files, clients=max(args.clients), seconds=2.0)  # warm
        for clients in args.clients:
            for _ in range(args.rounds):
                for kind, port in ports.items():
                    before, start_s = batches(port), time.perf_counter()
                    answers = ask(port, files, clients=clients, seconds=args.seconds)
                    wall_s, after = time.perf_counter() - start_s, batches(port)
                    counts = (after[0] - before[0], after[1] - before[1])
                    rounds[kind][clients].append(summary(answers, wall_s, *counts))
    return rounds


def report(rounds: dict[str, dict[int, list[Round]]]) -> str:
    """Lays out medians over the rounds."""
    titles = ["server", "clients", "requests/s", "p50, ms", "p99, ms", "images per batch", "failed"]
    rows = []
    for kind, by_clients in rounds.items():
        for clients, found in by_clients.items():
            middle = [statistics.median(values) for values in zip(*found, strict=True)]
            cells = [f"{middle[0]:,.1f}", *(f"{value:,.0f}" for value in middle[1:3])]
            failed = sum(each.failures for each in found)
            rows.append([kind, str(clients), *cells, f"{middle[3]:.1f}", str(failed)])
    return table(titles, rows)


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table, and with `--json` writes the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="swin_nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 16])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--workers", type=positive, default=2, help="decoding threads")
    parser.add_argument("--batch-size", type=positive, default=32)
    parser.add_argument("--max-wait-ms", type=float, default=5.0)
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    args = parser.parse_args(words)
    machine = describe_machine(torch.device(args.device))
    print(header(machine))
    rounds = measure(args)
    print(f"\n{args.model}, medians of {args.rounds} rounds of {args.seconds:g} s\n")
    print(report(rounds))
    write_json(args.json, {"machine": machine, "rounds": rounds})


if __name__ == "__main__":
    main()
