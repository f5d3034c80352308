"""Names in the configurations of earlier versions, and what they are called now.

A run is continued although its configuration names a class by where it lay when the run began.
"""

from collections.abc import Mapping
from typing import Any

TARGETS = {  # of version 0.1.0
    "lightning.pytorch.Trainer": "ssl_swin.Trainer",
    "ssl_swin.encoders.swin": "ssl_swin.swin",
    "ssl_swin.beit.beit": "ssl_swin.beit",
    "ssl_swin.simmim.SimMIM": "ssl_swin.SimMIM",
    "ssl_swin.sparse.SparseSimMIM": "ssl_swin.SparseSimMIM",
    "ssl_swin.training.optim.finetune_optimizer": "ssl_swin.finetune_optimizer",
    "ssl_swin.training.optim.pretrain_optimizer": "ssl_swin.pretrain_optimizer",
    "ssl_swin.data.transforms.AugmentedView": "ssl_swin.FinetuneAugmentation",
    "ssl_swin.data.transforms.RandomCropView": "ssl_swin.RandomCrop",
    "ssl_swin.training.callbacks.checkpoint.StepCheckpoint": "ssl_swin.StepCheckpoint",
    "ssl_swin.training.callbacks.throughput.Throughput": "ssl_swin.Throughput",
    "ssl_swin.training.callbacks.bad_samples.BadSamples": "ssl_swin.BadSamples",
    "ssl_swin.training.callbacks.reconstructions.Reconstructions": "ssl_swin.Reconstructions",
    "ssl_swin.data.drawn.prepare.prepare_demo": "ssl_swin.prepare_demo",
    "ssl_swin.schedules.MultistepSchedule": "ssl_swin.MultistepSchedule",
    "ssl_swin.schedules.CosineSchedule": "ssl_swin.CosineSchedule",
}


# Settings of `model` today, which 0.1.0's fine-tuning and probing had beside it or not at all; the
# values are those of a backbone that is probed as it is.
OF_THE_MODEL = {
    "img_size_px": None,
    "window_size": None,
    "drop_path_rate": 0.0,
    "grad_checkpointing": False,
}


NEW_IN_DATA = {"exif_rotation": False}
NEW_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {  # that are not null, with what was so before
    "ssl_swin.beit": {"fixed_positions": False, "layer_scale": 0.1, "initial_weights": "simmim"},
    "ssl_swin.SparseSimMIM": {"decoder_fixed_positions": False},
}


def up_to_date(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's configuration with today's names.

    Args:
        config: Configuration of a run by this version or an earlier one; left as it is.
    """
    today = _with_flat_objective(_with_task(_with_model_settings(_with_targets(config))))
    return _with_new_arguments(_with_evaluation_settings(_with_new_data_settings(today)))


def _with_targets(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _with_targets(value)
        if isinstance(value, Mapping)
        else TARGETS.get(value, value)
        if key == "_target_"
        else value
        for key, value in config.items()
    }


def _with_new_data_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of `data` that came later, where they are not null, as what they were before."""
    data = config.get("data")
    if not isinstance(data, dict) or "dtype" not in data:  # says nothing of pixels
        return config
    return config | {"data": NEW_IN_DATA | data}


def _with_new_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of an encoder or objective that came later, as what was so before."""
    found = {}
    for group in ("model", "objective"):
        section = config.get(group)
        if isinstance(section, dict) and section.get("_target_") in NEW_ARGUMENTS:
            found[group] = {**NEW_ARGUMENTS[section["_target_"]], **section}
    return config | found


def _with_model_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Since 0.2.0 what lay beside `model` lies in it; null there left the size as it was."""
    model = config.get("model")
    if not isinstance(model, dict):
        return config
    beside = {key: config[key] for key in OF_THE_MODEL if config.get(key) is not None}
    of_backbone = model.get("_target_") is None
    own = {key: value for key, value in model.items() if key != "_target_" or not of_backbone}
    rest = {key: value for key, value in config.items() if key not in OF_THE_MODEL}
    return rest | {"model": {**(OF_THE_MODEL if of_backbone else {}), **own, **beside}}


def _with_task(config: dict[str, Any]) -> dict[str, Any]:
    """Since 0.2.0 what `mixing` held are arguments of the task."""
    if "mixing" not in config:
        return config
    task = {"_target_": "ssl_swin.Classification", "_partial_": True, **config["mixing"]}
    return {key: value for key, value in config.items() if key != "mixing"} | {"task": task}


def _with_flat_objective(config: dict[str, Any]) -> dict[str, Any]:
    """Since 0.2.0 what `objective` held are arguments of the objective's own class.

    A mask patch was always a number; today null stands for the one that suits the encoder.
    """
    objective = config.get("objective", {})
    if "model" not in objective:
        return config
    size_px = objective["mask_unit_px"]
    flat = {
        **objective["model"],
        "mask_ratio": objective["mask_ratio"],
        "mask_patch_size_px": None if size_px == _usual_mask_patch_px(config["model"]) else size_px,
        "shared_mask": objective["shared_mask"],
    }
    return config | {"objective": flat}


def _with_evaluation_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Since 0.2.0 the crop of evaluation can be set, and few labels in probing as well."""
    if "model" not in config or "classes" in config:  # the latter of dense tasks, on no crops
        return config
    before: dict[str, Any] = {"eval_crop_ratio": 0.875}
    if "knn" in config:
        before["labels"] = {"ratio": None, "per_class": None, "seed": 0}
    return before | config


def _usual_mask_patch_px(model: Mapping[str, Any]) -> int:
    """A token of a Swin's last stage, or two patches of a ViT."""
    num_halvings = len(model.get("depths") or (0, 0)) - 1
    return int(model["patch_size_px"] * 2**num_halvings)
