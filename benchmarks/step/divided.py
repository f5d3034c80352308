"""Memory of training that is replicated (DDP) or divided (FSDP2), and of its checkpoints, on CPUs.

python -m benchmarks.step.divided --models swin_t swin_b --ranks 2 4

Counted after a step: the bytes of a process's own weights, gradients and AdamW's state, the most of
any process; what the steps themselves keep is not in it. A save, and a load into the same weights
and states, are measured by the peak of the resident memory above what there was before, of the
first process and the most of the others: of one file, which the first process gathers, or in parts.
"""

import argparse
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from benchmarks.step.workload import make_workload
from benchmarks.tables import MEBIBYTE, describe_machine, header, table
from ssl_swin.divided_checkpoint import open_state
from ssl_swin.training.checkpointing.dividing import write_parts
from ssl_swin.training.checkpointing.writing import write_verified
from ssl_swin.training.sharding import full, like, load_whole, shard

TITLES = (
    *("model", "ranks", "strategy", "weights MiB", "gradients", "AdamW", "sum"),
    *("save: first +MiB", "others +MiB", "load: first +MiB", "others +MiB"),
)
KINDS = ("ddp", "fsdp", "fsdp, in parts")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Facts = dict[str, int]


def own(tensor: Any) -> Tensor:
    """Return what this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def num_bytes(tensors: Iterator[Any]) -> int:
    """Return the bytes that this process holds of some tensors."""
    return sum(own(each).numel() * each.element_size() for each in tensors)


def resident(name: str) -> int:
    """Return a line of the process's status in bytes: VmRSS, or VmHWM for the peak."""
    (line,) = (each for each in STATUS.read_text().splitlines() if each.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def train(model: nn.Module) -> torch.optim.AdamW:
    """Give all weights a gradient and make a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer


def gathered(tensors: dict[Any, Any], *, is_first: bool) -> dict[Any, Any]:
    """Return whole tensors on the first process, as the strategy does."""
    whole = {}
    for name, value in tensors.items():
        tensor = full(value)
        if is_first:
            whole[name] = tensor
    return whole


def save(model: nn.Module, optimizer: torch.optim.AdamW, folder: Path, kind: str) -> None:
    """Write a checkpoint as a run of this kind does."""
    is_first, path = dist.get_rank() == 0, folder / "last.ckpt"
    weights, states = dict(model.state_dict()), optimizer.state_dict()
    if kind == "fsdp, in parts":
        content = {"state_dict": weights, "optimizer_states": [states]}
        write_parts(content, path, begin=dict, finish=lambda made: made.rename(path))
        return
    whole = gathered(weights, is_first=is_first)
    moments = {key: gathered(each, is_first=is_first) for key, each in states["state"].items()}
    if is_first:
        write_verified({"state_dict": whole, "optimizer_states": [moments]}, path)


def load(model: nn.Module, optimizer: torch.optim.AdamW, folder: Path) -> None:
    """Read a checkpoint as a run does that goes on; each process what it needs."""
    content = open_state(folder / "last.ckpt")
    load_whole(model, content["state_dict"])
    (states,) = content["optimizer_states"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, values in states.get("state", states).items():
        for name, value in values.items():
            there = optimizer.state[parameters[key]][name]
            own(there).copy_(own(like(value, there)))


def grown(action: Callable[[], None]) -> int:
    """Return by how much the peak of the resident memory is above what there was."""
    dist.barrier()
    CLEAR.write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    action()
    return resident("VmHWM") - before


def work(rank: int, model: str, ranks: int, kind: str, port: int, folder: str) -> None:
    """Measure in one process, and leave the numbers in the folder."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    objective = make_workload(model, batch_size=1, device=torch.device("cpu")).weights
    trained: nn.Module = objective
    if kind != "ddp":
        trained = shard(objective, init_device_mesh("cpu", (ranks,)))
    optimizer = train(trained)
    parameters = list(trained.parameters())
    states = [v for each in optimizer.state.values() for v in each.values()]
    facts = {
        "weights": num_bytes(iter(parameters)),
        "gradients": num_bytes(p.grad for p in parameters),
        "AdamW": num_bytes(iter(states)),
    }
    place = Path(folder)
    facts["save"] = grown(lambda: save(trained, optimizer, place, kind))
    facts["load"] = grown(lambda: load(trained, optimizer, place))
    torch.save(facts, Path(folder) / f"facts{rank}")
    dist.destroy_process_group()


def measure(model: str, ranks: int, kind: str) -> list[Facts]:
    """Return what each process found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (model, ranks, kind, port, folder), nprocs=ranks)
        return [torch.load(Path(folder) / f"facts{rank}") for rank in range(ranks)]


def row(model: str, ranks: int, kind: str, facts: list[Facts]) -> list[str]:
    """Write a line of the table."""
    kept = [max(each[key] for each in facts) for key in ("weights", "gradients", "AdamW")]
    moved = [
        number
        for what in ("save", "load")
        for number in (facts[0][what], max(each[what] for each in facts[1:]))
    ]
    return [model, str(ranks), kind] + [f"{n / MEBIBYTE:.0f}" for n in (*kept, sum(kept), *moved)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["swin_t"], help="Swins of conf/model")
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4], help="processes, 2 or more")
    options = parser.parse_args()
    print(header(describe_machine(torch.device("cpu"))))
    for model in options.models:
        rows = [
            row(model, ranks, kind, measure(model, ranks, kind))
            for ranks in options.ranks
            for kind in KINDS
        ]
        print(table(TITLES, rows), flush=True)


if __name__ == "__main__":
    main()
