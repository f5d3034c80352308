"""`ssl-swin pretrain` and the other jobs: the same as the scripts, from an installed package."""

from collections.abc import MutableMapping, Sequence

JOBS = {
    "pretrain": "pretrain an encoder on images; settings as key=value, see its --help",
    "finetune": "fine-tune a pretrained backbone into a classifier",
    "segment": "train a class for every pixel on a pretrained backbone",
    "detect": "train boxes and masks of single objects on a pretrained backbone",
    "linear-probe": "judge the frozen features of a backbone on labelled images",
}


def run_job(name: str, options: Sequence[str]) -> int:
    """Run a job.

    Args:
        name: One of `JOBS`.
        options: The rest of the command line, which Hydra reads.

    Returns:
        0; a job that fails ends the process with its own exit code.
    """
    from ssl_swin.launch.script import run_script

    run_script(name.replace("-", "_"), options)
    return 0


def job_of_completion(environment: MutableMapping[str, str]) -> str:
    """Return the job whose command line a shell completes, and remove its name from that line.

    The shell function that Hydra installs knows programs without sub-commands only.

    Args:
        environment: `COMP_LINE` holds the line, as `ssl-swin pretrain model=sw`.
    """
    program, _, rest = environment.get("COMP_LINE", "").lstrip().partition(" ")
    word, _, settings = rest.lstrip().partition(" ")
    if word not in JOBS:
        return next(iter(JOBS))
    environment["COMP_LINE"] = f"{program} {settings}"
    return word
