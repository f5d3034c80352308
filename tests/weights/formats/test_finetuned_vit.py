"""The fine-tuned ViT of the original SimMIM: a table in every block, `fc_norm`, and a head."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from saved_backbones import MEAN, STD, saved
from timm.models.beit import Beit, gen_relative_position_index
from torch import Tensor

from ssl_swin.encoders.beit import BeitEncoder, beit
from ssl_swin.encoders.resize import resize_bias_table
from ssl_swin.errors import UserError
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import load_backbone, save_backbone, save_classifier
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import import_weights, save_import
from ssl_swin.weights.formats.weight_files import read_weights

CLASSES = 7
TINY: dict[str, Any] = {"img_size_px": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
BIASES = 7 * 7 + 3  # offsets in a grid of 4 x 4 patches, and those of the cls token
OF_A_BLOCK = {
    "norm1.weight": (32,),
    "norm1.bias": (32,),
    "gamma_1": (32,),
    "attn.qkv.weight": (96, 32),
    "attn.q_bias": (32,),
    "attn.v_bias": (32,),
    "attn.relative_position_bias_table": (BIASES, 2),
    "attn.relative_position_index": (17, 17),
    "attn.proj.weight": (32, 32),
    "attn.proj.bias": (32,),
    "norm2.weight": (32,),
    "norm2.bias": (32,),
    "gamma_2": (32,),
    "mlp.fc1.weight": (128, 32),
    "mlp.fc1.bias": (128,),
    "mlp.fc2.weight": (32, 128),
    "mlp.fc2.bias": (32,),
}
# Every tensor of the original's fine-tuned ViT of two blocks, by hand.
ORIGINAL = {
    "cls_token": (1, 1, 32),
    "patch_embed.proj.weight": (32, 3, 16, 16),
    "patch_embed.proj.bias": (32,),
    **{f"blocks.{b}.{name}": shape for b in range(2) for name, shape in OF_A_BLOCK.items()},
    "fc_norm.weight": (32,),
    "fc_norm.bias": (32,),
    "head.weight": (CLASSES, 32),
    "head.bias": (CLASSES,),
}


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {name: torch.randn(shape) for name, shape in ORIGINAL.items()}
    index = gen_relative_position_index((4, 4))
    return {n: index.clone() if n.endswith("_index") else t for n, t in state.items()}


@pytest.fixture
def original(state: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save({"model": state, "epoch": 99}, tmp_path / "ckpt.pth")
    return tmp_path / "ckpt.pth"


@pytest.fixture
def theirs(state: dict[str, Tensor]) -> Beit:
    """timm's model of the same names, which has no file for the index to lie in."""
    model = Beit(
        img_size=64,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=CLASSES,
        init_values=0.1,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
        global_pool="avg",
    )
    model.load_state_dict({n: t for n, t in state.items() if not n.endswith("_index")})
    return model.eval()


@torch.no_grad()
def test_import__gives_the_features_of_timms_model(original, theirs):
    imported, _ = import_weights(original)
    encoder = imported.encoder.eval()
    assert isinstance(encoder, BeitEncoder)
    assert encoder.for_finetuning() is encoder
    images = torch.randn(2, 3, 64, 64)
    tokens = theirs.forward_features(images)
    features = encoder(images)
    assert tokens.std() > 0.5
    assert features.flatten(2).transpose(1, 2).equal(tokens[:, 1:])
    pooled = theirs.forward_head(tokens, pre_logits=True)
    assert torch.allclose(encoder.pool(features), pooled, rtol=0, atol=1e-5)


@torch.no_grad()
def test_import__keeps_the_head_that_is_asked_for(original, theirs, tmp_path):
    imported, _ = import_weights(original, num_classes=CLASSES)
    assert imported.classifier.encoder is imported.encoder
    images = torch.randn(2, 3, 64, 64)
    assert torch.allclose(imported.classifier.eval()(images), theirs(images), rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="a head of 7 classes, and one of 10 classes is to be kept"):
        import_weights(original, num_classes=10)


def test_import__accounts_for_every_tensor(original):
    _, report = import_weights(original)
    head = "a head of 7 classes, which a backbone has not"
    rebuilt = "rebuilt from the sizes, and found equal"
    assert {entry.name: entry.reason for entry in report.dropped} == {
        "head.weight": head,
        "head.bias": head,
        "blocks.0.attn.relative_position_index": rebuilt,
        "blocks.1.attn.relative_position_index": rebuilt,
    }
    assert {entry.name for entry in report.matched} == ORIGINAL.keys() - {
        entry.name for entry in report.dropped
    }
    assert report.renamed == report.resized == ()
    assert {entry.name for entry in report.missing} == {
        "mask_token",
        "decoder.0.weight",
        "decoder.0.bias",
    }


def test_import__resizes_the_table_of_every_block(original, state):
    imported, report = import_weights(original, img_size_px=96, num_classes=CLASSES)
    names = {f"blocks.{block}.attn.relative_position_bias_table" for block in range(2)}
    assert {entry.name for entry in report.resized} == names
    assert imported.classifier.encoder is imported.encoder
    assert imported.encoder.img_size_px == (96, 96)
    resized = imported.encoder.model.state_dict()
    for name in names:
        offsets, of_cls = state[name][:-3], state[name][-3:]
        assert resized[name].equal(torch.cat([resize_bias_table(offsets, 4, 6), of_cls]))


@pytest.mark.parametrize("num_classes", [None, CLASSES])
def test_round_trip__of_the_originals_file(num_classes, original, state, tmp_path):
    imported, _ = import_weights(original, num_classes=num_classes, format_name="simmim")
    save_import(tmp_path / "backbone", imported, card="")
    export_weights(tmp_path / "backbone", tmp_path / "again.pth", to="simmim")
    again = read_weights(tmp_path / "again.pth").state
    expected = {n: t for n, t in state.items() if num_classes or not n.startswith("head.")}
    assert again.keys() == expected.keys()
    assert all(again[name].equal(tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(("to", "file"), [("simmim", "out.pth"), ("timm", "out.safetensors")])
def test_round_trip__of_a_fine_tuned_classifier(to, file, tmp_path):
    classifier = Classifier(beit(**TINY), num_classes=CLASSES)
    for tensor in classifier.parameters():
        torch.nn.init.normal_(tensor)
    names = [str(number) for number in range(CLASSES)]
    save_classifier(tmp_path / "own", classifier, classes=names, mean=MEAN, std=STD, card="")
    report = export_weights(tmp_path / "own", tmp_path / file, to=to)
    imported, _ = import_weights(tmp_path / file, num_classes=CLASSES, format_name=to)
    ours, given = imported.classifier.state_dict(), classifier.state_dict()
    assert report.dropped == ()
    assert ours.keys() == given.keys()
    assert all(ours[name].equal(given[name]) for name in given)


def test_import__of_our_own_folder_keeps_its_normalisation(tmp_path):
    encoder = beit(**TINY).for_finetuning()
    save_backbone(tmp_path / "own", encoder, mean=MEAN, std=STD, card="")
    imported, report = import_weights(tmp_path / "own", format_name="timm")
    assert (imported.mean, imported.std, report.notes) == (MEAN, STD, ())
    assert imported.encoder.model_args == encoder.model_args


def test_export__leaves_what_pretraining_left_beside_it(tmp_path):
    folder = saved(beit(**TINY).for_finetuning(), tmp_path / "backbone")
    report = export_weights(folder, tmp_path / "out.pth", to="simmim")
    assert {entry.name for entry in report.dropped} == {
        "mask_token",
        "decoder.0.weight",
        "decoder.0.bias",
    }
    expected = load_backbone(folder).encoder.model.state_dict()
    found = import_weights(tmp_path / "out.pth")[0].encoder.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)


def test_round_trip__of_a_pretraining_with_a_table_in_every_block(tmp_path):
    encoder = beit(**TINY, shared_position_bias=False)
    folder = saved(encoder, tmp_path / "backbone")
    assert export_weights(folder, tmp_path / "out.pth", to="simmim").dropped == ()
    imported, _ = import_weights(tmp_path / "out.pth")
    assert imported.simmim is not None
    assert imported.encoder.model_args == encoder.model_args


def change(original: Path, state: dict[str, Tensor], **changes: Tensor | None) -> None:
    changed = state | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    torch.save({"model": {n: t for n, t in changed.items() if t is not None}}, original)


def test_import__refuses_an_index_of_another_grid(original, state):
    index = gen_relative_position_index((4, 4)).flip(0)
    change(original, state, blocks__1__attn__relative_position_index=index)
    with pytest.raises(UserError, match=r"blocks\.1\.attn\.relative_position_index is not that of"):
        import_weights(original)


def test_import__names_the_block_without_a_table(original, state):
    change(original, state, blocks__1__attn__relative_position_bias_table=None)
    with pytest.raises(UserError, match=r"1 missing: blocks\.1\.attn\.relative_position_bias"):
        import_weights(original)


def test_import__keeps_no_head_on_features_that_are_pooled_otherwise(tmp_path):
    state = beit(**TINY).model.state_dict()
    head = {"head.weight": torch.randn(CLASSES, 32), "head.bias": torch.randn(CLASSES)}
    file = tmp_path / "timm.safetensors"
    safetensors.torch.save_file(state | head, file)
    assert len(import_weights(file)[1].dropped) == 2
    with pytest.raises(UserError, match=r"its head cannot be kept: a ViT \(BEiT\) classifies here"):
        import_weights(file, num_classes=CLASSES)


@pytest.mark.parametrize("name", ["swin", "huggingface"])
def test_export__is_refused_for_swins_alone(name, tmp_path):
    folder = saved(beit(**TINY).for_finetuning(), tmp_path / "backbone", with_head=False)
    with pytest.raises(UserError, match=f"a fine-tuned ViT cannot be written as '{name}'"):
        export_weights(folder, tmp_path / "out", to=name)


def test_export__of_a_pretrained_vit_without_simmim_head_names_the_way_out(tmp_path):
    folder = saved(beit(**TINY), tmp_path / "backbone", with_head=False)
    with pytest.raises(UserError, match=r"no mask token and pixel head.*as 'timm'"):
        export_weights(folder, tmp_path / "out.pth", to="simmim")
