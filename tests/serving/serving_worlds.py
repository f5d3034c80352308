"""A small network that is served, in this process or in one of its own."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.encoders.swin import swin
from ssl_swin.inference.vectors import View
from ssl_swin.serving.limits import Limits
from ssl_swin.serving.questions import Question, Served
from ssl_swin.serving.service import Service
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import save_backbone, save_classifier

ROOT = Path(__file__).parents[2]
CLASSES = ["ant", "bee", "cat", "cow", "dog", "elk", "fox"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
START_S = 120.0


def write_run(folder: Path) -> None:
    """Writes a classifier of random weights, and a backbone."""
    torch.manual_seed(1)
    encoder = swin(
        img_size_px=64, window_size=4, embed_dim=8, depths=(1, 1, 1), num_heads=(1, 2, 2), version=1
    )
    model = Classifier(encoder, num_classes=len(CLASSES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_classifier(
        folder / "run/classifier",
        model,
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        card="",
        crop_ratio=0.75,
    )
    save_backbone(folder / "backbone", encoder, mean=MEAN, std=STD, card="")


def brightness(compute: Callable[[Tensor], Tensor] | None = None) -> Served:
    """A network that answers /mean with the mean of an image's values."""

    def values(pixels: Tensor) -> dict[str, Tensor]:
        means = pixels.float().mean(dim=(1, 2, 3))
        return {"mean": means if compute is None else compute(means)}

    question = Question("mean", "the mean", values, lambda row: {"mean": row["mean"].item()})
    pixels = PixelFormat(channels=3, dtype="uint8", max_image_pixels=10**6)
    return Served("a mean", View(pixels, 1.0), (8, 8), {"mean": question})


def asking(
    test: Callable[[httpx.AsyncClient, Service], Awaitable[Any]],
    served: Served | None = None,
    **limits: Any,
) -> Any:
    """Runs a test with a client of an application in this process."""

    async def run() -> Any:
        service = Service(served or brightness(), Limits(**limits), num_threads=2)
        transport = httpx.ASGITransport(service)
        async with (
            service.running(),
            httpx.AsyncClient(transport=transport, base_url="http://served") as client,
        ):
            return await test(client, service)

    return asyncio.run(run())


class Process:
    """A server in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, log: Path) -> None:
        self.process, self.url, self._log = process, url, log

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = re.findall(r"//(.*):(\d+)", self.url)[0]
        return host, int(port)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def said(self) -> str:
        """What it has printed."""
        return self._log.read_text()


@contextmanager
def served_process(folder: Path, network: str, *options: str) -> Iterator[Process]:
    """Starts `ssl-swin serve` on a free port, and ends it with the test."""
    log = folder / f"server_{time.monotonic_ns()}.txt"
    words = ["-m", "ssl_swin", "serve", network, "--port", "0", "--device", "cpu", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        yield Process(process, _url(process, log), log)
    finally:
        process.kill()
        process.wait()


def _url(process: "subprocess.Popen[str]", log: Path) -> str:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        if found := re.search(r"listening on (http\S+);", log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(log.read_text())
