"""A Slurm job whose run was stopped goes back into its queue."""

import os
import subprocess
from collections.abc import Mapping

LIMIT_S = 60.0


def slurm_job(environment: Mapping[str, str]) -> str | None:
    """Return the job that this process belongs to, as scontrol names it; None outside of Slurm.

    Args:
        environment: Variables of the process.
    """
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def requeue_slurm_job() -> str:
    """Requeue the job of this process; return what to say, nothing outside of Slurm.

    One process of a run calls it, when all have saved. `sbatch --no-requeue` makes Slurm refuse.
    """
    job = slurm_job(os.environ)
    if job is None:
        return ""
    try:
        answer = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=LIMIT_S
        )
    except FileNotFoundError:
        return f"Slurm job {job} is not requeued: there is no scontrol on PATH here"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Slurm job {job} is not requeued: {error}"
    if answer.returncode:
        problem = " ".join((answer.stderr or answer.stdout).split()) or f"exit {answer.returncode}"
        return f"Slurm job {job} is not requeued: scontrol says: {problem}"
    return f"Slurm job {job} is requeued and will go on from there"
