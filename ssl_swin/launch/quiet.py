"""Keeps libraries from talking over the run's own few lines."""

import logging
import os
import threading
import warnings

SPEAK_LATER = ("tensorboard",)  # they raise again in the main thread what failed in theirs
_usual_hook = threading.excepthook  # of the process that a job runs in


def quiet_libraries() -> None:
    """Silences notices that ask nothing of the user; warnings about the run itself stay."""
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    os.environ.setdefault("WANDB_QUIET", "true")
    logging.raiseExceptions = False  # no traceback where a library cannot write its own log
    if threading.excepthook is not _tell_unless_told_later:
        global _usual_hook
        _usual_hook, threading.excepthook = threading.excepthook, _tell_unless_told_later
    for message in (
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning's own use of torch
        r".*does not have many workers which may be a bottleneck.*",  # num_workers is a setting
        r".*The number of training batches .* is smaller than the logging interval.*",
        r".*your dataloader is not resumable.*",  # the data module holds its place
        r".*sync_dist=True.* when logging on epoch level.*",  # all processes log the same number
        r".*module\(s\) in eval mode at the start of training.*",  # as a teacher always is
        r".*Checkpoint directory .* exists and is not empty.*",  # so it is when a run continues
    ):
        warnings.filterwarnings("ignore", message=message)


def _tell_unless_told_later(failed: threading.ExceptHookArgs) -> None:
    """Print no traceback for what a library's thread hands to the main thread anyway."""
    if not type(failed.thread).__module__.startswith(SPEAK_LATER):
        _usual_hook(failed)
