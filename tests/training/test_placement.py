import pytest

from ssl_swin.training.placement import Placement, launched_placement

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WORLD_SIZE": "8", "LOCAL_RANK": "1"}, None),  # Lightning's own further processes
        (TORCHRUN, Placement(4, 2)),
        (SRUN, Placement(2, 3)),
        (SRUN | {"SLURM_JOB_NAME": "pretrain"}, Placement(2, 3)),
        (SRUN | {"SLURM_JOB_NAME": "bash"}, None),  # by hand, within an allocation
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, None),
        (SRUN | TORCHRUN, Placement(4, 2)),  # torchrun inside a job
    ],
)
def test_launched_placement(environment, expected):
    assert launched_placement(environment) == expected
