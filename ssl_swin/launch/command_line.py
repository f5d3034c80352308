"""How a job was started, and is started again."""

import sys
from pathlib import Path


def command(job: str) -> str:
    """Return the command that starts a job the way in which this process was started.

    Args:
        job: Name of the job, as linear_probe.

    Returns:
        `python linear_probe.py` if a script runs, else `ssl-swin linear-probe`.
    """
    if Path(sys.argv[0]).name in ("pretrain.py", "finetune.py", "linear_probe.py"):
        return f"python {job}.py"
    return f"ssl-swin {job.replace('_', '-')}"
