"""A process that does training steps when it is told to; `benchmarks.step.threads` starts several.

python -m benchmarks.step.on_request MODEL BATCH_SIZE

For each number that it reads it does as many steps and prints the seconds that they took, and the
last loss. Nothing of it runs between two numbers.
"""

import sys
import time

import torch

from benchmarks.step.workload import make_workload
from ssl_swin.objectives.simmim import SimMIM


def main(model: str, batch_size: int) -> None:
    """Answers until its input ends."""
    workload = make_workload(model, batch_size=batch_size, device=torch.device("cpu"))
    step = _Step(workload.weights, workload.images, workload.mask(0))
    step()  # allocates the optimiser's state
    print("ready", torch.get_num_threads(), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        losses = [step() for _ in range(int(line))]
        print(time.perf_counter() - start, losses[-1], flush=True)


class _Step:
    """A training step of SimMIM, always on the same images and mask."""

    def __init__(self, model: SimMIM, images: torch.Tensor, mask: torch.Tensor) -> None:
        self._model, self._images, self._mask = model.train(), images, mask
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def __call__(self) -> float:
        loss = self._model.reconstruct(self._images, self._mask).loss
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
