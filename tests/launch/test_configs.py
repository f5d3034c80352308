"""What configurations compose can be built; that all compose is in test_settings_check.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ssl_swin.launch.resolvers import register_resolvers

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(autouse=True)
def hydra_here() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(job: str, *overrides: str) -> DictConfig:
    cfg = compose(job, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    return cfg


def resolved(cfg: DictConfig) -> dict:
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


@pytest.mark.parametrize("job", ["finetune", "linear_probe"])
def test_downstream__is_named_after_backbone_and_data(job: str) -> None:
    cfg = composed(job, "data=shards", "data.root=x", "backbone=runs/pretrain/mine/backbone")
    assert resolved(cfg)["run_dir"] == f"runs/{job}/mine_shards"


OFFICIAL_STRIDE_PX = 32


THIN = {  # so that the large ones build in a moment
    "swin": ("model.embed_dim=32", "model.depths=[1,1,1,1]", "model.num_heads=[1,1,1,1]"),
    "convnext": ("model.depths=[1,1,1,1]", "model.dims=[8,8,8,8]"),
    "resnet": ("model.depths=[1,1,1,1]", "model.channels=[8,8,8,8]"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [m for m in options("model") if m != "from_backbone" and "vit" not in m]
)
def test_model__builds_and_says_its_size(model: str) -> None:
    thin: tuple[str, ...] = ()
    if not model.startswith("swin_nano"):
        (thin,) = (changes for family, changes in THIN.items() if model.startswith(family))
    encoder = instantiate(composed("pretrain", f"model={model}", *thin).model)
    assert encoder.mask_patch_size_px == encoder.stride
    assert encoder.stride == (16 if model.startswith("swin_nano") else OFFICIAL_STRIDE_PX)


@pytest.mark.parametrize(("model", "patch_px"), [("vit_b", 16), ("vit_nano", 8)])
def test_model__vit_has_units_of_two_patches(model: str, patch_px: int) -> None:
    changes = ("model.embed_dim=32", "model.depth=2", "model.num_heads=1")
    encoder = instantiate(composed("pretrain", f"model={model}", *changes).model)
    assert (encoder.mask_patch_size_px, encoder.stride) == (2 * patch_px, patch_px)
    assert (encoder.model.pos_embed is not None) == (model == "vit_nano")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "million"),
    [
        ("swin_t", 27.51),
        ("swin_s", 48.82),
        ("swin_b", 86.73),
        ("swinv2_s", 48.96),
        ("vit_b", 85.67),
        ("vit_nano", 1.56),
    ],
)
def test_model__has_the_official_number_of_parameters(model: str, million: float) -> None:
    """Swin-B: 86.725 M, and SwinV2-S: 48.96 M, are recipe facts; T and S follow timm's."""
    with torch.device("meta"):
        encoder = instantiate(composed("pretrain", f"model={model}").model)
    count = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert count == pytest.approx(million, abs=0.005)


def test_pretrain__paper_recipe_without_the_overrides_of_the_data() -> None:
    """The 100-epoch recipe: batch 2048 at lr 2e-4 per 512, warm-up 10 epochs, clip 5, wd 0.05."""
    cfg = composed("pretrain", "model=swin_b", "data=imagenet22k")
    assert (cfg.optim.base_lr, cfg.optim.weight_decay, cfg.batch_size) == (2e-4, 0.05, 128)
    assert (cfg.schedule.warmup_epochs, cfg.schedule.warmup_lr) == (10, 1e-6)
    assert (cfg.trainer.max_epochs, cfg.trainer.gradient_clip_val) == (100, 5.0)
    assert (cfg.objective.mask_ratio, cfg.objective.mask_patch_size_px) == (0.6, None)
    assert (cfg.model.img_size_px, cfg.model.window_size) == (192, 6)


def test_struct__a_misspelt_key_is_refused() -> None:
    with pytest.raises(ConfigCompositionException, match=r"optim\.lr"):
        composed("pretrain", "optim.lr=3")
