"""What is said of masks before a run."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.errors import UserError
from ssl_swin.jobs.mask_look import look_at_masks
from ssl_swin.tasks.segmentation import Segmentation


def png(values: np.ndarray, orientation: int = 1) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG", exif=exif)
    return file.getvalue()


class Masked(ImageDataset):
    """Images of 4 x 6 px with the given masks."""

    classes: tuple[str, ...] = ()
    fingerprint = "0" * 16

    def __init__(self, *masks: bytes, image: bytes = b"") -> None:
        self.masks = masks
        self.image = image or png(np.zeros((4, 6)))

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> EncodedSample:
        sample = EncodedSample.of_image(self.image, "png", None, f"image_{index}")
        return sample.with_member("mask", Member(self.masks[index], "png"))

    def file_name(self, index: int) -> str:
        return f"{index}.png"


def look(dataset: ImageDataset, *, exif_rotation: bool = False, **masks: object) -> None:
    task = Segmentation.__new__(Segmentation)
    object.__setattr__(task, "classes", ("sky", "sea"))
    object.__setattr__(task, "masks", MaskClasses(**masks))  # type: ignore[arg-type]
    split = IndexedSplit(dataset, OrderConstants(1, 4, 1))
    look_at_masks("train", split, task, PixelFormat(3, "uint8", exif_rotation=exif_rotation))


def test_look_at_masks__says_nothing_of_good_ones(capsys: pytest.CaptureFixture[str]) -> None:
    both = png(np.arange(24).reshape(4, 6) % 2)
    look(Masked(both, png(np.full((4, 6), 255))))
    look(Masked(both, b"damaged", both[:40]))  # which the loader counts
    look(Masked(both, image=b"damaged"))
    assert capsys.readouterr().out == ""


def test_look_at_masks__refuses_with_the_file() -> None:
    for mask, message in (
        (np.zeros((6, 4)), r"mask of image_0 \(0.png\) is 6 x 4 px .*, its image 4 x 6"),
        (np.full((4, 6), 2), r"mask of image_0 \(0.png\) has the value 2, and what is known is 0"),
        (np.ones((4, 6, 3)), r"mask of image_0 \(0.png\) is of colours \(1-1-1\): give the class"),
    ):
        with pytest.raises(UserError, match=message):
            look(Masked(png(mask)))
    with pytest.raises(
        UserError, match=r"colour 1-1-1 \(row 0, column 0\), and what is known is 0"
    ):
        look(Masked(png(np.ones((4, 6, 3)))), class_of_colour={"0-0-0": 0})


def test_look_at_masks__of_turned_pictures() -> None:
    sideways = png(np.zeros((4, 6)), orientation=6)
    look(Masked(png(np.arange(24).reshape(6, 4) % 2), image=sideways), exif_rotation=True)
    with pytest.raises(UserError, match="is 6 x 4 px"):
        look(Masked(png(np.zeros((6, 4))), image=sideways))


def test_look_at_masks__names_classes_that_are_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    look(Masked(png(np.zeros((4, 6))), png(np.zeros((4, 6)))))
    assert capsys.readouterr().out == (
        "note: 2 masks of train that were looked at hold no pixel of class sea\n"
    )
