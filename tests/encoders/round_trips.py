"""What every encoder that timm lacks has to survive: ours, timm's and the original's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import timm
import torch
from torch import Tensor

from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.weights.backbone import import_for_timm, load_backbone, save_backbone
from ssl_swin.weights.cards import timm_card
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import import_weights, save_import

E = TypeVar("E", bound=Encoder)


def images_for(encoder: Encoder, batch_size: int = 2) -> Tensor:
    """Noise of the encoder's size."""
    noise = torch.Generator().manual_seed(1)
    return torch.randn(batch_size, encoder.in_chans, *encoder.img_size_px, generator=noise)


def disturbed(build: Callable[..., E], **sizes: Any) -> E:
    """An encoder of which every weight is disturbed, fixed ones too."""
    torch.manual_seed(0)
    encoder = build(**sizes)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder.eval()


@torch.no_grad()
def check_goes_to_timm_and_back(encoder: Encoder, folder: Path, module: str) -> Any:
    """Write, load by us and by timm after an import of a module; return timm's network."""
    values = [0.5] * encoder.in_chans
    save_backbone(folder, encoder, mean=values, std=values, card=timm_card("ours", 0))
    loaded = load_backbone(folder).encoder.eval()
    assert type(loaded) is type(encoder)
    assert import_for_timm(folder) == f"import {module}; "
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    images = images_for(encoder)
    expected = encoder.pool(encoder(images))
    assert loaded.pool(loaded(images)).equal(expected)
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)
    return model


@torch.no_grad()
def check_takes_the_originals_names(encoder: Encoder, folder: Path) -> set[str]:
    """Write under the original's names and read again; return those names.

    A Swin has six tensors in its mergings, which the original has in the stage before.
    """
    save_backbone(folder / "ours", encoder, mean=[0.5] * 3, std=[0.5] * 3, card="")
    export_weights(folder / "ours", folder / "theirs.pth", to="swin")
    imported, report = import_weights(folder / "theirs.pth")
    assert imported.encoder.model_args == encoder.model_args
    assert len(report.renamed) == 6
    save_import(folder / "again", imported, card="")
    again = load_backbone(folder / "again").encoder.eval()
    images = images_for(encoder)
    assert again(images).equal(encoder(images))
    with pytest.raises(UserError, match=f"a {encoder.title} cannot be written as 'huggingface'"):
        export_weights(folder / "ours", folder / "hf", to="huggingface")
    return set(torch.load(folder / "theirs.pth", weights_only=True)["model"])


@torch.no_grad()
def check_is_rebuilt_from_what_a_file_says(original: Encoder) -> Encoder:
    """Build an encoder from JSON with another drop path rate; return it, with the same weights."""
    arguments = json.loads(json.dumps(original.model_args))
    rebuilt = build_encoder(original.architecture, arguments, drop_path_rate=0.25)
    assert type(rebuilt) is type(original)
    rebuilt.model.load_state_dict(original.model.state_dict())
    images = images_for(original)
    assert rebuilt.eval()(images).equal(original(images))
    return rebuilt
