"""Names in the configurations of earlier versions, and what they are called now.

A run is continued although its configuration names a class by where it lay when the run began.
"""

from collections.abc import Mapping
from typing import Any

TARGETS = {  # of version 0.1.0
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
    "ssl_swin.training.callbacks.knn_probe.KnnProbe": "ssl_swin.KnnProbe",
    "ssl_swin.data.drawn.prepare.prepare_demo": "ssl_swin.prepare_demo",
    "ssl_swin.schedules.MultistepSchedule": "ssl_swin.MultistepSchedule",
    "ssl_swin.schedules.CosineSchedule": "ssl_swin.CosineSchedule",
}


def up_to_date(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's configuration with today's names.

    Args:
        config: Of a run by this version or an earlier one, nested; left as it is.
    """
    return {key: _renamed(key, value) for key, value in config.items()}


def _renamed(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return up_to_date(value)
    return TARGETS.get(value, value) if key == "_target_" else value
