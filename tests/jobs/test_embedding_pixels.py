from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.jobs.embedding import embed
from ssl_swin.weights.backbone import Backbone, load_backbone, save_backbone


@pytest.fixture
def backbone(tmp_path: Path, tiny_encoder: Callable[..., SwinEncoder]) -> Backbone:
    save_backbone(tmp_path / "b", tiny_encoder(), mean=[0.0] * 3, std=[1.0] * 3, card="")
    return load_backbone(tmp_path / "b")


def test_embed__bands_with_holes(backbone: Backbone, tmp_path: Path) -> None:
    """Three of five bands, NaN filled: the same as of an image that holds just that."""
    bands = np.random.default_rng(0).normal(size=(5, 64, 64)).astype(np.float32)
    bands[:, :9] = 2.5
    for folder, values in (("whole", bands[[4, 0, 2]]), ("holes", bands.copy())):
        (tmp_path / folder).mkdir()
        if folder == "holes":
            values[:, :9] = np.nan
        np.save(tmp_path / folder / "x.npy", values)
    plain = embed(backbone, tmp_path / "whole", pixels=PixelFormat(3, "float32"))
    chosen = PixelFormat(3, "float32", bands=(4, 0, 2), fill=2.5)
    of_holes = embed(backbone, tmp_path / "holes", pixels=chosen)
    assert torch.equal(plain.vectors, of_holes.vectors) and plain.vectors.std() > 0
    with pytest.raises(UserError, match=r"x\.npy has 5 channels; data\.channels is 3"):
        embed(backbone, tmp_path / "holes", pixels=PixelFormat(3, "float32", fill=0))
