"""How many processes there are, where something else has started them."""

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Placement(NamedTuple):
    """Where a run's processes are, one device each."""

    devices: int | Literal["auto"]  # per node; "auto" for all that there are
    num_nodes: int


def launched_placement(environment: Mapping[str, str]) -> Placement | None:
    """Return the processes that torchrun or srun has started; None where Lightning starts them.

    Args:
        environment: The environment variables of this process.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        per_node = int(environment["LOCAL_WORLD_SIZE"])
        return Placement(per_node, int(environment["WORLD_SIZE"]) // per_node)
    is_interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "SLURM_NTASKS" in environment and "SLURM_NNODES" in environment and not is_interactive:
        num_nodes = int(environment["SLURM_NNODES"])
        return Placement(int(environment["SLURM_NTASKS"]) // num_nodes, num_nodes)
    return None
