"""Learning from few of the labels, in whichever job learns from any."""

from omegaconf import DictConfig

from ssl_swin.data.loading.few_labels import (
    FewImages,
    FewLabels,
    keep_few_images,
    keep_few_labels,
)
from ssl_swin.data.loading.protocol import Split
from ssl_swin.launch.printing import say


def train_on_few_labels(cfg: DictConfig, readers: dict[str, Split]) -> None:
    """Reduce the training split to `cfg.labels`, and say so.

    Args:
        cfg: Configuration of a job.
        readers: Data by split; "train" is replaced.

    Raises:
        UserError: If a class has fewer images than asked for, or there are no classes.
    """
    everything = readers["train"]
    readers["train"] = keep_few_labels(everything, FewLabels(**cfg.labels))
    _tell(everything, readers["train"])


def train_on_few_images(cfg: DictConfig, readers: dict[str, Split]) -> None:
    """Reduce the training split to `cfg.labels`, whatever the images show, and say so.

    Args:
        cfg: Configuration of a job.
        readers: Data by split; "train" is replaced.

    Raises:
        UserError: If there are fewer images than asked for.
    """
    everything = readers["train"]
    readers["train"] = keep_few_images(everything, FewImages(**cfg.labels))
    _tell(everything, readers["train"])


def _tell(everything: Split, kept: Split) -> None:
    if kept is not everything:
        say(f"labels: {kept.num_samples} of {everything.num_samples} training images")
