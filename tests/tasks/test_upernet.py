"""Both heads against the original's numbers, and against transformers' heads.

The original's are read from `../shared/golden/dense`, or from `dense` in the folder that
SSL_SWIN_GOLDEN names; transformers', with weights drawn here, are compared everywhere.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ssl_swin.data.mask_classes import IGNORED
from ssl_swin.errors import UserError
from ssl_swin.tasks.pixel_loss import pixel_loss
from ssl_swin.tasks.upernet import FCNHead, UPerHead

SHARED = Path(__file__).parents[3] / "shared" / "golden"
CHANNELS = (12, 24, 48, 96)


def heads(num_classes=5):
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "decode_head": UPerHead(CHANNELS, channels=16, num_classes=num_classes, dropout=0.0),
            "auxiliary_head": FCNHead(48, channels=8, num_classes=num_classes, dropout=0.0),
        }
    )


@pytest.fixture(scope="module")
def golden():
    folder = Path(os.environ.get("SSL_SWIN_GOLDEN", SHARED)) / "dense"
    if not folder.is_dir():
        pytest.skip("../shared/golden/dense is not here")
    parts = (load_file(folder / f"upernet_heads_{part}.safetensors") for part in PARTS)
    return json.loads((folder / "upernet_heads.json").read_text()), *parts


PARTS = ("weights", "inputs", "outputs")


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_heads__are_the_originals(golden, mode):
    facts, weights, inputs, outputs = golden
    model = heads()
    model.load_state_dict(weights)
    model.train(mode == "train")
    maps = [inputs[f"features.{level}"].requires_grad_() for level in range(4)]
    classes = inputs["label"].long()
    classes[classes == 255] = IGNORED
    scores = {
        "decode": model["decode_head"](maps),
        "auxiliary": model["auxiliary_head"](maps[2]),
    }
    for name, actual in scores.items():
        torch.testing.assert_close(actual, outputs[f"{mode}.{name}"], rtol=0, atol=1e-5)
    losses = {name: pixel_loss(each, classes) for name, each in scores.items()}
    for name, actual in losses.items():
        expected = outputs[f"{mode}.loss_{name}"].item()
        assert actual.item() == pytest.approx(expected, abs=1e-6)
    loss = losses["decode"] + 0.4 * losses["auxiliary"]
    assert loss.item() == pytest.approx(outputs[f"{mode}.loss"].item(), abs=1e-6)
    labelled = [pixel_loss(each, classes, mean="labelled") for each in scores.values()]
    expected = outputs[f"{mode}.loss_mean_over_valid"].item()
    assert (labelled[0] + 0.4 * labelled[1]).item() == pytest.approx(expected, abs=1e-6)
    if mode == "eval":
        return
    loss.backward()
    parameters = dict(model.named_parameters())
    parameters |= {f"features.{level}": each for level, each in enumerate(maps)}
    norms = {name: each.grad.norm().item() for name, each in parameters.items()}
    assert norms == pytest.approx(facts["gradient_norms_train"], rel=1e-4, abs=1e-7)
    after = model.state_dict()
    for name in [name for name in outputs if name.startswith("train.after.")]:
        actual = after[name.removeprefix("train.after.")]
        torch.testing.assert_close(actual, outputs[name], rtol=1e-5, atol=1e-6)


def transformers_name(name):
    names = {"batch_norm": "bn", "classifier": "conv_seg"}
    return ".".join(names.get(part, part) for part in name.split("."))


@pytest.mark.slow
@pytest.mark.parametrize("is_training", [False, True])
def test_heads__are_those_of_transformers(is_training):
    from transformers import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

    config = UperNetConfig(
        hidden_size=16, num_labels=5, auxiliary_channels=8, auxiliary_in_channels=48
    )
    theirs = nn.ModuleDict(
        {
            "decode_head": UperNetHead(config, in_channels=CHANNELS),
            "auxiliary_head": UperNetFCNHead(config, in_channels=CHANNELS),
        }
    ).train(is_training)
    ours = heads().train(is_training)
    renamed = {transformers_name(name): tensor for name, tensor in theirs.state_dict().items()}
    assert renamed.keys() == ours.state_dict().keys()
    generator = torch.Generator().manual_seed(0)
    for tensor in renamed.values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    ours.load_state_dict(renamed)
    sizes = ((9, 14), (5, 7), (3, 4), (2, 2))
    maps = [
        torch.randn(2, width, *size, generator=generator)
        for width, size in zip(CHANNELS, sizes, strict=True)
    ]
    with torch.no_grad():
        for head, given in (("decode_head", maps), ("auxiliary_head", maps[2])):
            expected = theirs[head](maps)
            torch.testing.assert_close(ours[head](given), expected, rtol=0, atol=1e-6)
            assert expected.std() > 0.01


def test_heads__begin_as_the_originals():
    torch.manual_seed(0)
    head = UPerHead((64, 64), channels=64, num_classes=50)
    assert head.lateral_convs[0].conv.weight.std().item() == pytest.approx(
        (2 / 64) ** 0.5, rel=0.05
    )
    assert head.fpn_convs[0].conv.weight.std().item() == pytest.approx(
        (2 / (64 * 9)) ** 0.5, rel=0.02
    )
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert head.conv_seg.bias.eq(0).all() and head.bottleneck.bn.weight.eq(1).all()


def test_upernet_of_swin_t__has_the_published_heads():
    head = UPerHead((96, 192, 384, 768), channels=512, num_classes=150)
    auxiliary = FCNHead(384, channels=256, num_classes=150)
    numbers = [sum(p.numel() for p in each.parameters()) for each in (head, auxiliary)]
    norms = 2 * (96 + 192 + 384 + 768)
    assert 27_519_354 - 2 * 768 + norms + sum(numbers) == 59_941_862


def test_heads__refuse_what_is_no_number_of_classes():
    with pytest.raises(UserError, match="num_classes must be a whole number of at least 2, got 1"):
        UPerHead(CHANNELS, channels=16, num_classes=1)
    with pytest.raises(UserError, match="dropout must be"):
        FCNHead(48, channels=8, num_classes=2, dropout=1.0)


def test_pixel_loss__by_hand():
    scores = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]], requires_grad=True)  # (1, 2, 1, 2)
    classes = torch.tensor([[[1, IGNORED]]])
    half = torch.log(torch.tensor(2.0)).item()
    assert pixel_loss(scores, classes).item() == pytest.approx(half / 2)
    assert pixel_loss(scores, classes, mean="labelled").item() == pytest.approx(half)
    nothing = torch.full((1, 1, 2), IGNORED)
    for mean in ("all", "labelled"):
        loss = pixel_loss(scores, nothing, mean=mean)
        loss.backward()
        assert loss.item() == 0
    assert scores.grad.eq(0).all()
