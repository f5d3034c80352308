"""Weights that are divided over the processes (FSDP2): dividing, gathering, and single tensors."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from ssl_swin.divided_checkpoint import Scattered
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.objectives.base import Objective


def shard(model: Objective, mesh: DeviceMesh) -> Objective:
    """Return a copy of an objective whose weights are divided: each block by itself, then the rest.

    The weights are those of the first process. Names and the order of parameters stay the same.

    Args:
        model: The whole objective, which is left as it is.
        mesh: The processes, in one dimension.
    """
    _take_from_first(model, mesh)
    sharded = copy.deepcopy(model)
    for ours, theirs in zip(sharded.modules(), model.modules(), strict=True):
        if theirs._compiled_call_impl is not None:  # copying a module drops it
            ours.compile()
    for encoder in [part for part in sharded.modules() if isinstance(part, Encoder)]:
        for block in encoder.blocks():
            fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    _prepare_outermost(sharded)
    return sharded


def gathered(trainer: Trainer) -> AbstractContextManager[None]:
    """Hold whole weights on every process while the context lasts, if they are divided at all.

    No forward pass in it communicates, so that the processes may run as many as they like. All of
    them must enter it; within, nothing may be trained.

    Args:
        trainer: The trainer of the run.
    """
    module = trainer.lightning_module
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    return _whole(parts) if parts else nullcontext()


@contextmanager
def divided(module: nn.Module) -> Iterator[None]:
    """Hold only each process's part for a moment, in a context that holds whole weights.

    All of them must enter it. What is changed in a part is whole afterwards.

    Args:
        module: With divided weights or not; without, nothing happens.
    """
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.reshard()
    yield
    for part in parts:
        part.unshard()


def own_part(value: Tensor) -> Tensor:
    """Return this process's part of a divided tensor, in the same memory; another as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def full(value: Any) -> Any:
    """Return a divided tensor as a whole one, on every process; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(whole: Tensor | Scattered, divided: Any) -> Tensor:
    """Return this process's part of a whole tensor, divided as another one of its shape is.

    Args:
        whole: The same on every process; of one on the disk only that part is read.
        divided: A tensor; if it is not divided, or of another shape, all of `whole` is returned.
    """
    if not isinstance(divided, DTensor) or tuple(whole.shape) != tuple(divided.shape):
        return whole.whole() if isinstance(whole, Scattered) else whole
    if isinstance(whole, Scattered):
        return _read_part(whole, divided)
    whole = whole.to(divided.device)
    mesh, placements = divided.device_mesh, divided.placements
    return distribute_tensor(whole, mesh, placements, src_data_rank=None)


def gather_objects(own: Any) -> list[Any]:
    """Return what every process has, by rank, on all of them; outside a distributed run, `own`."""
    if not (dist.is_available() and dist.is_initialized()):
        return [own]
    everything = [None] * dist.get_world_size()
    dist.all_gather_object(everything, own)
    return everything


@torch.no_grad()
def load_whole(model: nn.Module, state: Mapping[str, Tensor | Scattered]) -> None:
    """Copy whole tensors into a model, divided or not, one after the other.

    Args:
        model: Whose names and shapes these are.
        state: In memory or on the disk, the same on every process.
    """
    own = model.state_dict()
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    if shapes != {name: tuple(value.shape) for name, value in state.items()}:
        model.load_state_dict({name: like(value, own.get(name)) for name, value in state.items()})
        return  # it has told what does not fit
    for name, value in state.items():
        own_part(own[name]).copy_(own_part(like(value, own[name])))


def _read_part(scattered: Scattered, divided: DTensor) -> DTensor:
    mesh, placements = divided.device_mesh, divided.placements
    shape, start = compute_local_shape_and_global_offset(divided.shape, mesh, placements)
    part = scattered.cut(start, shape).to(divided.device)
    return DTensor.from_local(
        part, mesh, placements, run_check=False, shape=divided.shape, stride=divided.stride()
    )


@contextmanager
def _whole(parts: Sequence[FSDPModule]) -> Iterator[None]:
    _, *inner = parts  # the outermost stays whole after a forward pass anyway
    for part in inner:
        part.set_reshard_after_forward(False, recurse=False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in inner:
            part.set_reshard_after_forward(True, recurse=False)
        for part in parts:
            part.reshard()


def _take_from_first(model: nn.Module, mesh: DeviceMesh) -> None:
    """Make all processes start from the same weights, as DDP does."""
    for tensor in (*model.parameters(), *model.buffers()):
        on_device = tensor.detach().to(mesh.device_type, copy=True).flatten()
        dist.broadcast(on_device.view(torch.uint8), src=0)  # of any type
        tensor.data.copy_(on_device.view(tensor.shape))


def _prepare_outermost(model: nn.Module) -> None:
    """Run an empty forward pass: the first module to be called takes itself for the outermost."""
    assert isinstance(model, FSDPModule)
    model.forward = lambda: None
    model()
    del model.forward
    model.reshard()
