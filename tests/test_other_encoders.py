"""What is no Swin with attention, from pretraining to timm: the jobs as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from ssl_swin.weights.backbone import load_backbone

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SHORT = (
    "data.prepare.num_train=40",
    "data.prepare.num_val=20",
    "batch_size=10",
    "num_workers=0",
)
TRAINED = ("trainer.max_epochs=1", "callbacks.reconstructions=null", "compile=false")
MODELS = {
    "ResNet": ("model=resnet_nano",),
    "ConvNeXt": (
        "model=convnext_t",
        "model.img_size_px=96",
        "model.depths=[1,1,1,1]",
        "model.dims=[8,16,24,32]",
    ),
    "Swin-MLP": (
        "model=swin_mlp_t_c6",
        "model.img_size_px=64",
        "model.window_size=4",
        "model.embed_dim=16",
        "model.depths=[1,2,1]",
        "model.num_heads=[1,2,4]",
    ),
}


def start(folder: Path, job: str, *overrides: str, code: int = 0) -> str:
    """Runs a job in a folder; gives what it printed."""
    result = subprocess.run(
        [sys.executable, str(ROOT / f"{job}.py"), *overrides],
        cwd=folder,
        env={"PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == code, result.stderr[-3000:]
    return result.stdout + result.stderr


@pytest.fixture(scope="module", params=MODELS)
def pretrained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, str]:
    """A kind of encoder, the folder that its run lies in, and what the run printed."""
    folder = tmp_path_factory.mktemp("pretrained")
    said = start(folder, "pretrain", *MODELS[request.param], *SHORT, *TRAINED, "name=it")
    return request.param, folder, said


def test_pretraining__hands_a_backbone_to_timm(pretrained: tuple[str, Path, str]) -> None:
    kind, folder, said = pretrained
    backbone = folder / "runs/pretrain/it/backbone"
    encoder = load_backbone(backbone).encoder.eval()
    assert encoder.title == kind
    assert "note: an image has" in said  # of so few mask patches
    assert f"A {kind} pretrained" in (backbone / "README.md").read_text()
    assert ("import ssl_swin.encoders.swin_mlp; timm.create_model" in said) == (kind == "Swin-MLP")
    model = timm.create_model(f"local-dir:{backbone}", pretrained=True, num_classes=0).eval()
    images = torch.randn(2, 3, *encoder.img_size_px)
    with torch.no_grad():
        expected = encoder.pool(encoder(images))
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


def test_pretraining__its_checkpoint_starts_another(pretrained: tuple[str, Path, str]) -> None:
    _, folder, _ = pretrained
    checkpoint = "backbone=runs/pretrain/it/checkpoints/last.ckpt"
    said = start(folder, "pretrain", checkpoint, *SHORT, *TRAINED, "plan=true")
    assert "encoder, mask_token, decoder.0.weight, decoder.0.bias" in said
    assert "G an image, forward and backward" in said


def test_finetuning__hands_a_classifier_to_timm(pretrained: tuple[str, Path, str]) -> None:
    _, folder, _ = pretrained
    start(folder, "finetune", "backbone=runs/pretrain/it", *SHORT, "trainer.max_epochs=1")
    (classifier,) = folder.glob("runs/finetune/*/classifier")
    config = json.loads((classifier / "config.json").read_text())
    model = timm.create_model(f"local-dir:{classifier}", pretrained=True).eval()
    assert model.get_submodule(config["pretrained_cfg"]["classifier"]).out_features == 10
    assert len(config["label_names"]) == 10


def test_probing__looks_at_every_stage(pretrained: tuple[str, Path, str]) -> None:
    _, folder, _ = pretrained
    backbone = folder / "runs/pretrain/it/backbone"
    number = len(load_backbone(backbone).encoder.stage_dims)
    quick = ("linear.epochs=2", "linear.warmup_epochs=1", "knn.ks=[1,3]")
    said = start(folder, "linear_probe", "backbone=runs/pretrain/it", *SHORT[:2], *quick)
    assert f"stage {number}" in said


@pytest.mark.parametrize("kind", MODELS)
def test_sparse__is_refused_in_one_message(kind: str, tmp_path: Path) -> None:
    said = start(tmp_path, "pretrain", *MODELS[kind], *SHORT, "objective=simmim_sparse", code=2)
    assert kind in said
    assert "objective=simmim takes" in said
    assert 'File "' not in said
