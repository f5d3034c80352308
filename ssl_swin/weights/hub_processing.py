"""How transformers are to prepare images for a network on the hub.

`config.json` in timm's layout is enough for transformers to load a network; alone it has timm's
transforms prepare images, which resize with Pillow. `preprocessor_config.json` beside it goes
before that on the hub, and asks for the resizing of torchvision, which is that of evaluation here.
"""

from collections.abc import Mapping
from typing import Any

_BICUBIC = 3  # Pillow's number


def why_not_prepared(config: Mapping[str, Any]) -> str:
    """Return why transformers cannot prepare the images of a network; empty if they can.

    Args:
        config: Content of its config.json.
    """
    channels, height_px, width_px = config["pretrained_cfg"]["input_size"]
    if channels != 3:
        return f"its images have {channels} channels, and transformers' processors take RGB"
    if height_px != width_px:
        return (
            f"its images are {height_px} x {width_px} px, and transformers' processors crop what "
            "was resized by its shorter side alone"
        )
    return ""


def preprocessor_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the preprocessor_config.json of a network whose images are square and RGB.

    Args:
        config: Content of its config.json.
    """
    settings = config["pretrained_cfg"]
    side_px = settings["input_size"][1]
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": int(side_px / settings["crop_pct"])},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": side_px, "width": side_px},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(settings["mean"]),
        "image_std": list(settings["std"]),
    }
