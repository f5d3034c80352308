"""What a finished run proposes: commands that can run, or what is missing for them."""

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.opening import BOX_READERS
from ssl_swin.data.loading.protocol import Split
from ssl_swin.launch.command_line import words_to_start
from ssl_swin.launch.next_command import (
    data_overrides,
    job_line,
    options_of_this_job,
    overrides_of_this_job,
)
from ssl_swin.launch.run import Run
from ssl_swin.quoting import override, shell_line

# Settings of data that `ssl-swin predict` would have to be told by options.
READ_PLAINLY: dict[str, Any] = {
    "dtype": "uint8",
    "exif_rotation": False,
    "labels": True,
    "splits": True,
    "masks": True,
    "leave_out": [],
    **dict.fromkeys(("index_dir", "image", "label_key", "bands", "channel_axis", "nodata", "fill")),
    "cache": None,
}
OF_ONE_RUN = ("name", "run_dir", "resume", "seed")


def after_pretraining(run: Run, readers: Mapping[str, Split]) -> list[str]:
    """Return how to probe and to fine-tune a backbone, or what the data lacks for it.

    Args:
        run: The pretraining run.
        readers: Its data by split.
    """
    missing = missing_for_labels(readers)
    if missing:
        return [f"probing and fine-tuning need {missing}"]
    data, options = run.config["data"], options_of_this_job()
    backbone = override("backbone", run.folder.address)
    lines = [
        job_line("linear_probe", [backbone, *data_overrides("linear_probe", data)], options),
    ]
    num_train = readers["train"].num_samples
    if num_train > 1:  # mixing needs pairs
        overrides = [backbone, *data_overrides("finetune", data)]
        if data["dtype"] != "uint8" or data["channels"] not in (1, 3):
            overrides.append("augment.auto_augment=null")
        lines.append(job_line("finetune", overrides, options, num_train=num_train))
    return lines


def after_finetuning(run: Run) -> list[str]:
    """Return how to predict, and how to repeat this job with other seeds; nothing within a sweep.

    Args:
        run: The fine-tuning run.
    """
    repeat = with_other_seeds("finetune")
    return [*_predicting(run, "predictions.csv"), *repeat] if repeat else []


def after_training_on_images(run: Run, job: str, out: str) -> list[str]:
    """Return how to predict by a task of whole images, and how to repeat its job.

    Args:
        run: The finished run.
        job: Name of the job.
        out: Folder in that of the run for what is predicted.
    """
    repeat = with_other_seeds(job)
    return [*_predicting(run, out, "labels"), *repeat] if repeat else []


def with_other_seeds(job: str) -> list[str]:
    """Return how to repeat this job with other seeds; nothing where it is part of a sweep.

    Args:
        job: Name of the job.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return []
    kept = [word for word in overrides_of_this_job() if word.partition("=")[0] not in OF_ONE_RUN]
    words = [*words_to_start(job), "--multirun", *options_of_this_job(), *kept]
    return [f"{shell_line([*words, 'seed=0,1,2'])}  # how much is chance"]


def _predicting(run: Run, out: str, *of_no_matter: str) -> list[str]:
    """Return how to predict the images of the run, where they are read without further options."""
    data = run.config["data"]
    others = [key for key in READ_PLAINLY if key not in of_no_matter]
    is_plain = all(data.get(key, READ_PLAINLY[key]) == READ_PLAINLY[key] for key in others)
    if not is_plain or (run.folder.path / out).exists():
        return []
    address = run.folder.address
    options = [*_box_options(data), data["root"], f"{address}/{out}"]
    words = shell_line(["ssl-swin", "predict", address, *options])
    return [f"{words}  # or of other images"]


def _box_options(data: Mapping[str, Any]) -> list[str]:
    """Return the options that tell the boxes of images; none of shards, which hold them."""
    kind, given = data.get("reader"), data.get("annotations")
    if kind not in BOX_READERS:
        return []
    by_split = given if isinstance(given, Mapping) else {"": given or data["root"]}
    paths = [f"{split}={path}" if split else str(path) for split, path in by_split.items()]
    return [word for path in paths for word in (f"--{kind}", path)]


def missing_for_labels(readers: Mapping[str, Split]) -> str:
    """Return what data lacks for probing and classification, as a phrase; nothing if all is there.

    Args:
        readers: Data by split.
    """
    if len(readers["train"].classes) < 2:
        return (
            "labels, which these images do not have: pack them from a folder with one sub-folder "
            "per class, train/CLASS/ and val/CLASS/"
        )
    if "val" not in readers:
        return (
            "a val split, which this data does not have: pack the images with --val-ratio 0.02, or "
            "from a folder that holds train/ and val/"
        )
    for split in ("train", "val"):
        reader = readers[split]
        if isinstance(reader, IndexedSplit) and not (reader.dataset.labels() >= 0).any():
            return f"labels, which no image of {split} has: pack them with labels"
    return ""
