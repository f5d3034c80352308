"""What transformers' `UperNetForSemanticSegmentation` has to be told of a segmenter.

It is UPerNet as OpenMMLab's programs have it: the same maps, the same heads, corners not aligned.
Its loss is torch's own mean, over the pixels that have a class, and its heads have no dropout.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.weights.formats.exporting import write_folder
from ssl_swin.weights.formats.format import Config, Exported
from ssl_swin.weights.formats.huggingface import HUGGINGFACE
from ssl_swin.weights.segmenter import LoadedSegmenter

_LEFT_OUT = 255  # by the loss there


def write_upernet(out: Path, state: dict[str, Tensor], segmenter: LoadedSegmenter) -> None:
    """Write the folder that `from_pretrained` reads.

    Args:
        out: The folder.
        state: Tensors by the names there.
        segmenter: What they are of.
    """
    write_folder(out, state, upernet_configs(segmenter))


def upernet_configs(segmenter: LoadedSegmenter) -> dict[str, Config]:
    """Return `config.json` and `preprocessor_config.json`.

    Images are resized to a square there, whatever their shape, where ours keep it.

    Args:
        segmenter: One on a Swin V1.
    """
    model = segmenter.model
    encoder = model.encoder
    assert isinstance(encoder, SwinEncoder)
    described = HUGGINGFACE.configs(Exported(encoder, segmenter.mean, segmenter.std, "none", 0))
    backbone = {
        **described["config.json"],
        "architectures": None,
        "out_features": [f"stage{number + 1}" for number in range(len(encoder.depths))],
    }
    names = {str(label): name for label, name in enumerate(segmenter.classes)}
    auxiliary = segmenter.auxiliary
    config: dict[str, Any] = {
        "architectures": ["UperNetForSemanticSegmentation"],
        "model_type": "upernet",
        "backbone_config": backbone,
        "hidden_size": model.decode_head.conv_seg.in_channels,
        "pool_scales": [1, 2, 3, 6],
        "use_auxiliary_head": auxiliary is not None,
        "auxiliary_loss_weight": 0.4,
        "auxiliary_num_convs": 1,
        "auxiliary_concat_input": False,
        "loss_ignore_index": _LEFT_OUT,
        "id2label": names,
        "label2id": {name: int(label) for label, name in names.items()},
        "torch_dtype": "float32",
    }
    if auxiliary is not None:
        config["auxiliary_in_channels"] = encoder.stage_dims[-2]
        config["auxiliary_channels"] = auxiliary.conv_seg.in_channels
    side_px = segmenter.inference.short_px or encoder.img_size_px[0]
    preprocessing = {
        **described["preprocessor_config.json"],
        "image_processor_type": "SegformerImageProcessor",
        "size": {"height": side_px, "width": side_px},
        "resample": 2,
        "do_reduce_labels": segmenter.masks.reduce_zero_label,
    }
    return {"config.json": config, "preprocessor_config.json": preprocessing}
