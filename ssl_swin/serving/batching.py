"""Images that arrive one by one go through the network together."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_swin.inference.vectors import Compute
from ssl_swin.plurals import counted

log = logging.getLogger(__name__)
Row = Mapping[str, Tensor]  # values of one image by name


class ComputeFailed(Exception):
    """The network raised an error, which is the cause of this one."""


class _Waiting(NamedTuple):
    pixels: Tensor
    answer: "asyncio.Future[Row]"
    since_s: float


class Batcher:
    """Collects images into batches, and gives each its own part of what comes of them.

    A batch is due when it is full, or its first image has waited long enough. While one is
    computed, the next collects. Images whose clients have left are passed over.
    """

    def __init__(
        self,
        compute: Compute,
        thread: Executor,
        *,
        batch_size: int,
        max_wait_s: float,
        on_batch: Callable[[int, float], None],
    ) -> None:
        """Set the batcher up; `run` makes it work.

        Args:
            compute: Maps pixels (B, C, H, W) to values by name, each (B, ...).
            thread: Where it is called.
            batch_size: Most images of a batch.
            max_wait_s: Longest wait of the first image for others.
            on_batch: Is told the number of images and the seconds of each batch.
        """
        self._compute = compute
        self._thread = thread
        self._batch_size = batch_size
        self._max_wait_s = max_wait_s
        self._on_batch = on_batch
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        """Return how many images wait."""
        return len(self._waiting)

    async def __call__(self, pixels: Tensor) -> Row:
        """Return the values of an image.

        Args:
            pixels: (C, H, W).

        Raises:
            ComputeFailed: If the network failed on its batch.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Row] = loop.create_future()
        self._waiting.append(_Waiting(pixels, answer, loop.time()))
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        """Compute batches until this is cancelled."""
        while True:
            await self._until_due()
            if batch := self._taken():
                await self._answer(batch)

    async def _until_due(self) -> None:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        loop = asyncio.get_running_loop()
        due_s = self._waiting[0].since_s + self._max_wait_s
        while len(self._waiting) < self._batch_size and (left_s := due_s - loop.time()) > 0:
            self._arrived.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left_s)

    def _taken(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._batch_size:
            first = self._waiting.popleft()
            if not first.answer.done():
                batch.append(first)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        pixels = torch.stack([each.pixels for each in batch])
        loop = asyncio.get_running_loop()
        try:
            values, seconds = await loop.run_in_executor(self._thread, self._timed, pixels)
        except Exception as error:  # the server must outlive whatever a network raises
            log.exception("the network failed on %s", counted(len(batch), "image"))
            for each in batch:
                if not each.answer.done():
                    failure = ComputeFailed(f"a batch of {len(batch)} failed")
                    failure.__cause__ = error
                    each.answer.set_exception(failure)
            return
        self._on_batch(len(batch), seconds)
        for row, each in enumerate(batch):
            if not each.answer.done():
                each.answer.set_result({name: value[row] for name, value in values.items()})

    def _timed(self, pixels: Tensor) -> tuple[dict[str, Tensor], float]:
        start_s = time.perf_counter()
        values = self._compute(pixels)
        return values, time.perf_counter() - start_s
