"""The hand-off of a segmentation run: the folder `segmenter/`, and loading it again."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ssl_swin.arguments import PathLike, checked
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.pixels import normalize
from ssl_swin.tasks.segmentation import Segmentation
from ssl_swin.tasks.segmenter import (
    AUXILIARY_FILE,
    Segmenter,
    auxiliary_head,
    segmenter_export,
    segmenter_state,
)
from ssl_swin.tasks.segmenting import Inference
from ssl_swin.tasks.upernet import FCNHead
from ssl_swin.weights.backbone import WEIGHTS, read_safetensors, save_export, save_extra_weights
from ssl_swin.weights.task_folders import (
    check_image,
    describing,
    find_folder,
    is_of_task,
    load_exactly,
    read_hand_off,
)

FOLDER = "segmenter"  # in the folder of a run


@dataclass(frozen=True)
class LoadedSegmenter:
    """A segmenter that was handed off.

    Attributes:
        model: Encoder and head, in eval mode.
        classes: Names of the classes, by label.
        mean: Normalisation, per channel.
        std: Normalisation, per channel.
        inference: How it was evaluated to look at images.
        masks: What the values of the masks stood for that it was trained on.
        auxiliary: The head that only training uses, where it was handed off.
    """

    model: Segmenter
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inference: Inference
    masks: MaskClasses = field(default_factory=MaskClasses)
    auxiliary: FCNHead | None = None

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Return the probability of each class at every pixel, float32 (classes, H, W).

        Args:
            pixels: Raw pixels (C, H, W) of any size, uint8, uint16 or float32, on the device of the
                model.
        """
        check_image(pixels, len(self.mean), FOLDER)
        with torch.no_grad():
            images = normalize(pixels[None], self.mean, self.std)
            return self.inference.probabilities(self.model, images[0])

    def segment(self, pixels: Tensor) -> Tensor:
        """Return the class of every pixel, int64 (H, W); see `probabilities`."""
        return self.probabilities(pixels).argmax(dim=0)


@checked
def load_segmenter(path: PathLike) -> LoadedSegmenter:
    """Load what `segment.py` has handed off.

    Args:
        path: A folder `segmenter`, or a run's folder that holds one.

    Raises:
        UserError: If there is none, or its files do not belong together.
    """
    folder = find_folder(Path(path), FOLDER)
    with describing(folder, FOLDER):
        config, encoder, classes, mean, std = read_hand_off(folder)
        channels = config["head"]["channels"]
        inference = Inference(**config["inference"])
        masks = MaskClasses.of_settings(config.get("masks", MaskClasses().settings()))
        masks.check_classes(len(classes))
    model = Segmenter(encoder, channels=channels, num_classes=len(classes))
    own = segmenter_state(model.encoder, model.norms, model.decode_head)
    load_exactly(own, folder / WEIGHTS)
    auxiliary = _auxiliary(folder / AUXILIARY_FILE, encoder, len(classes))
    return LoadedSegmenter(model.eval(), classes, mean, std, inference, masks, auxiliary)


def save_segmenter(folder: Path, segmenter: LoadedSegmenter, *, card: str) -> None:
    """Write a segmenter as `segment.py` hands it off.

    Args:
        folder: Created if need be.
        segmenter: The segmenter.
        card: Text of the model card, Markdown.
    """
    model = segmenter.model
    export = segmenter_export(
        model.encoder,
        model.norms,
        model.decode_head,
        classes=segmenter.classes,
        inference=segmenter.inference,
        masks=segmenter.masks,
    )
    mean, std = segmenter.mean, segmenter.std
    save_export(folder, model.encoder, export, mean=mean, std=std, card=card, crop_ratio=1.0)
    if segmenter.auxiliary is not None:
        save_extra_weights(folder, {AUXILIARY_FILE: segmenter.auxiliary.state_dict()})


def is_segmenter(folder: Path) -> bool:
    """Return whether a folder holds what `segment.py` hands off."""
    return is_of_task(folder, Segmentation.title)


def _auxiliary(path: Path, encoder: Encoder, num_classes: int) -> FCNHead | None:
    """Read the head that only training uses; None where there is no file of it."""
    if not path.is_file():
        return None
    weight = read_safetensors(path).get("conv_seg.weight")
    channels = weight.shape[1] if weight is not None and weight.ndim == 4 else 1
    head = auxiliary_head(encoder, channels=channels, num_classes=num_classes)
    load_exactly(head.state_dict(), path)
    return head.eval()
