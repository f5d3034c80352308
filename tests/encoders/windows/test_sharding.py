"""Blocks sharded one by one (FSDP2) train as replicated ones (DDP), on two ranks."""

import os
import socket
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from launched import CONTEXT, LIMIT_S
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ssl_swin.encoders.swin import swin
from ssl_swin.encoders.windows.blocks import WindowBlock
from ssl_swin.masking import random_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM

pytestmark = pytest.mark.slow
NUM_RANKS, NUM_STEPS = 2, 4
OBJECTIVES = {"dense": SimMIM, "sparse": partial(SparseSimMIM, decoder_depth=1)}


class Reconstructing(torch.nn.Module):
    """What is wrapped: a module whose forward pass is the objective's loss."""

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def forward(self, images, mask):
        return self.objective.reconstruct(images, mask).loss


def build(version, objective, grad_checkpointing):
    torch.manual_seed(0)
    encoder = swin(
        version=version,
        img_size_px=64,
        window_size=4,
        embed_dim=8,
        depths=(2, 2, 2),
        num_heads=(1, 2, 2),
        grad_checkpointing=grad_checkpointing,
    )
    model = Reconstructing(OBJECTIVES[objective](encoder)).train()
    with torch.no_grad():  # V2's blocks start as the identity
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch(step, rank):
    seed = NUM_RANKS * step + rank
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    return images, random_mask((4, 4), 0.5, np.random.default_rng(seed), batch_size=2)


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train(model, names, rank):
    """Trains, and returns losses, every gradient of the first step and all weights at the end."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, gradients = [], {}
    for step in range(NUM_STEPS):
        loss = model(*batch(step, rank))
        loss.backward()
        if step == 0:
            pairs = zip(names, model.parameters(), strict=True)
            gradients = {name: full(parameter.grad).clone() for name, parameter in pairs}
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    pairs = zip(names, model.parameters(), strict=True)
    return losses, gradients, {name: full(p).detach() for name, p in pairs}


def compare(rank, port, folder, version, objective, grad_checkpointing):
    os.chdir(folder)
    output = os.open(f"output{rank}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=NUM_RANKS)
    replicated = build(version, objective, grad_checkpointing)
    names = [name for name, _ in replicated.named_parameters()]
    expected = train(DistributedDataParallel(replicated), names, rank)

    sharded = build(version, objective, grad_checkpointing)
    blocks = [module for module in sharded.modules() if isinstance(module, WindowBlock)]
    mesh = dist.device_mesh.init_device_mesh("cpu", (NUM_RANKS,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    assert [name for name, _ in sharded.named_parameters()] == names
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    actual = train(sharded, names, rank)

    assert len(blocks) == 6
    for theirs, ours in zip(expected, actual, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    moved = build(version, objective, grad_checkpointing).state_dict()
    assert all(not moved[name].equal(weight) for name, weight in actual[2].items())
    dist.destroy_process_group()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("grad_checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_fully_shard__per_block_equals_ddp(
    tmp_path: Path, version: int, objective: str, grad_checkpointing: bool
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = port, tmp_path, version, objective, grad_checkpointing
    processes = [
        CONTEXT.Process(target=compare, args=(rank, *arguments)) for rank in range(NUM_RANKS)
    ]
    for process in processes:
        process.start()
    for rank, process in enumerate(processes):
        process.join(LIMIT_S)
        assert process.exitcode == 0, (tmp_path / f"output{rank}.txt").read_text()[-3000:]
