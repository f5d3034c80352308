import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hub_server import HubServer, connect, serve_hub
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch.loggers import WandbLogger
from safetensors.torch import save
from torch import Tensor, nn

from ssl_swin.encoders.from_timm import encoder_of
from ssl_swin.errors import UserError
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.launch.resolvers import backbone_name
from ssl_swin.weights.backbone import load_backbone, save_backbone
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.from_timm import timm_repository
from ssl_swin.weights.sources import default_cache, resolve_backbone

GOLDEN = Path(__file__).parents[1] / "golden"
MOMENTS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
TINY = {"img_size": 64, "embed_dim": 8, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
TIMM = {  # architecture: what makes it tiny
    "swin_base_patch4_window7_224": TINY | {"window_size": 4},
    "swinv2_base_window16_256": TINY | {"window_size": 4},
    "swinv2_base_window12to16_192to256": TINY
    | {"window_size": 4, "pretrained_window_sizes": (8, 8, 8, 4)},
    "beit_large_patch16_224": {"img_size": 64, "embed_dim": 8, "depth": 3, "num_heads": 2},
}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        connect(server, tmp_path / "hub_cache", monkeypatch)
        yield server


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, tiny_encoder) -> Path:
    save_backbone(tmp_path / "run" / "backbone", tiny_encoder(), card="# A card\n", **MOMENTS)
    return tmp_path / "run" / "backbone"


def timm_model(architecture: str, **options: Any) -> nn.Module:
    """A tiny variation of a timm model, disturbed so that no block is the identity."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, **TIMM[architecture] | options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def timm_files(architecture: str, changes: dict[str, Any] | None = None) -> dict[str, bytes]:
    """A repository of timm's with a head, whose configuration says what makes the model tiny."""
    config = {
        "architecture": architecture,
        "num_classes": 5,
        "model_args": TIMM[architecture],
        "pretrained_cfg": {
            "tag": "small",
            "input_size": [3, 64, 64],
            "fixed_input_size": True,
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.2, 0.1],
            "num_classes": 5,
            "classifier": "head.fc" if "swin" in architecture else "head",
        },
    }
    weights = save(timm_model(architecture, num_classes=5).state_dict())
    return {
        "config.json": json.dumps(config | (changes or {})).encode(),
        "model.safetensors": weights,
        "pytorch_model.bin": b"never to be fetched",
    }


def images(side_px: int = 64) -> Tensor:
    return torch.randn(2, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))


def features_of(folder: Path) -> Tensor:
    encoder = load_backbone(folder).encoder.eval()
    with torch.no_grad():
        return encoder(images(encoder.img_size_px[0]))


def pooled_by_timm(architecture: str) -> Tensor:
    model: Any = timm_model(architecture, num_classes=5)
    with torch.no_grad():
        return model.forward_head(model.forward_features(images()), pre_logits=True)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_resolve_backbone__local_ones_are_where_they_are(folder, cache, monkeypatch):
    assert resolve_backbone(str(folder), cache) == folder
    assert resolve_backbone(str(folder.parent), cache) == folder
    monkeypatch.setenv("HOME", str(folder.parent.parent))
    assert resolve_backbone("~/run", cache) == folder
    assert not cache.exists()


@pytest.mark.parametrize("architecture", TIMM)
def test_resolve_backbone__converts_what_timm_wrote(tmp_path, cache, architecture):
    given = write(tmp_path / "theirs", timm_files(architecture))
    converted = resolve_backbone(str(given), cache)
    assert converted.parent == cache
    backbone = load_backbone(converted)
    assert (backbone.mean, backbone.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    with torch.no_grad():
        pooled = backbone.encoder.pool(backbone.encoder.eval()(images()))
    torch.testing.assert_close(pooled, pooled_by_timm(architecture), rtol=0, atol=1e-6)
    assert f"# {architecture}.small\n" in (converted / "README.md").read_text()


def test_resolve_backbone__converts_once_and_anew_when_the_file_changes(tmp_path, cache):
    architecture = "swin_base_patch4_window7_224"
    files = timm_files(architecture)
    given = write(tmp_path / "theirs", files)
    first = resolve_backbone(str(given), cache)
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert resolve_backbone(str(given), cache) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    state = timm_model(architecture, num_classes=5).state_dict()
    (given / "model.safetensors").write_bytes(save({k: 2 * v for k, v in state.items()}))
    second = resolve_backbone(str(given), cache)
    assert second != first
    assert not features_of(second).equal(features_of(first))
    assert sorted(cache.glob("[!.]*")) == sorted([first, second])  # and no drafts are left
    assert all(path.suffix == ".lock" for path in cache.glob(".*"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architecture": "vgg11"}, "vgg11 of timm cannot be a backbone here; supported: "),
        ({"architecture": "swin_s3_tiny_224"}, "swin_s3_tiny_224 of timm cannot be a backbone"),
        ({"architecture": "swin_small_patch4_window7_224", "model_args": {}}, "does not fit"),
        ({"model_args": {"no_such": 1}}, "does not fit the config.json: .*no_such"),
    ],
)
def test_resolve_backbone__refuses_what_cannot_be_converted(tmp_path, cache, changes, problem):
    files = timm_files("swin_base_patch4_window7_224", changes)
    given = write(tmp_path / "theirs", files)
    with pytest.raises(UserError, match=problem):
        resolve_backbone(str(given), cache)
    assert list(cache.glob("[!.]*")) == []


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "not the configuration of a model"),
        ('{"model_args": [1]}', "not the configuration of a model"),
        ('{"pretrained_cfg": 3}', "not the configuration of a model"),
        ('{"pretrained_cfg": [1]}', "not the configuration of a model"),
        ('{"architecture": ["x"]}', "not the configuration of a model"),
        ('{"architecture": "vit"}', "vit of timm cannot be a backbone"),
    ],
)
def test_resolve_backbone__needs_a_configuration(folder, cache, config, problem):
    (folder / "config.json").write_text(config)
    with pytest.raises(UserError, match=problem):
        resolve_backbone(str(folder), cache)


def test_encoder_of__refuses_other_models_and_varying_windows():
    with pytest.raises(UserError, match="a MobileNetV3 of timm cannot be an encoder"):
        encoder_of(timm.create_model("mobilenetv3_small_050"))
    searched = timm.create_model("swin_s3_tiny_224", embed_dim=8, num_heads=(1, 1, 1, 1))
    with pytest.raises(UserError, match=r"windows of \(7, 7, 14, 7\) tokens"):
        encoder_of(searched)
    other = timm.create_model("beit_base_patch16_224", embed_dim=8, depth=1, num_heads=1)
    other.registers = nn.Parameter(torch.zeros(1, 4, 8))
    with pytest.raises(UserError, match=r"variant of Beit is unknown.*registers"):
        encoder_of(other)


def test_encoder_of__takes_positions_at_the_input_of_a_vit():
    model = timm.create_model(
        "beit_base_patch16_224", embed_dim=8, depth=1, num_heads=1, use_abs_pos_emb=True,
        use_shared_rel_pos_bias=True, use_rel_pos_bias=False, num_classes=0,
    ).eval()  # fmt: skip
    encoder = encoder_of(model).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder.pool(encoder(images)), model(images))
    assert encoder.model.pos_embed.equal(model.pos_embed)


def test_resolve_backbone__original_file(tmp_path, cache):
    arrays = np.load(GOLDEN / "swin_v1.npz")
    params = {k: torch.from_numpy(arrays[k]) for k in arrays if k.startswith("param/")}
    state = {name.removeprefix("param/"): tensor for name, tensor in params.items()}
    file = tmp_path / "simmim_tiny.pth"
    torch.save({"model": state, "config": {"DATA": {"IMG_SIZE": 64}}}, file)
    converted = resolve_backbone(str(file), cache)
    assert converted.name.startswith("simmim_tiny-")
    backbone = load_backbone(converted)
    assert backbone.mean == timm.data.IMAGENET_DEFAULT_MEAN
    weights = backbone.encoder.model.state_dict()
    moved = "layers.0.downsample.reduction.weight"
    assert weights["layers.1.downsample.reduction.weight"].equal(state[f"encoder.{moved}"])
    assert weights["norm.bias"].equal(state["encoder.norm.bias"])
    file.unlink()
    assert features_of(converted).shape == (2, 64, 2, 2)


def test_resolve_backbone__file_that_does_not_tell_its_size(tmp_path, cache):
    arrays = np.load(GOLDEN / "swin_v1.npz")
    params = {k: torch.from_numpy(arrays[k]) for k in arrays if k.startswith("param/")}
    torch.save({name.removeprefix("param/"): t for name, t in params.items()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: nothing .* the image size.*`ssl-swin import`"):
        resolve_backbone(str(tmp_path / "x.pth"), cache)


def test_resolve_backbone__file_with_code_is_not_run(tmp_path, cache):
    marker = tmp_path / "executed"

    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    torch.save({"model": Planted()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="nothing was executed"):
        resolve_backbone(str(tmp_path / "bad.pth"), cache)
    assert not marker.exists()


def test_resolve_backbone__from_the_hub(hub, folder, cache):
    hub.add("user/name", {path.name: path.read_bytes() for path in folder.iterdir()})
    assert features_of(resolve_backbone("hf-hub:user/name", cache)).equal(features_of(folder))
    assert not cache.exists()  # it is in our layout, and stays in the hub's own cache


def test_resolve_backbone__from_the_hub_as_transformers_wrote_it(
    hub, tmp_path, tiny_encoder, cache
):
    encoder = tiny_encoder(img_size_px=128)
    save_backbone(tmp_path / "ours", encoder, card="", **MOMENTS)
    export_weights(tmp_path / "ours", tmp_path / "theirs", to="huggingface")
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    config = json.loads(files["config.json"])
    assert "architecture" not in config
    files["config.json"] = json.dumps(config | {"model_type": "../swin"}).encode()
    hub.add("user/name", files)
    converted = resolve_backbone("hf-hub:user/name", cache)
    assert converted.name.startswith(".._swin-")
    assert converted.parent == cache  # a name from the hub leads nowhere else
    assert features_of(converted).equal(features_of(tmp_path / "ours"))
    assert load_backbone(converted).mean == (0.5,) * 3


@pytest.mark.parametrize("form", ["timm:{}", "{}"])
def test_resolve_backbone__names_of_timm(hub, cache, form):
    name = "swin_base_patch4_window7_224"
    hub.add(f"timm/{name}.ms_in22k", timm_files(name))
    reference = form.format(f"{name}.ms_in22k")
    features = features_of(resolve_backbone(reference, cache))
    pooled = features.mean(dim=(2, 3))
    torch.testing.assert_close(pooled, pooled_by_timm(name), rtol=0, atol=1e-6)
    assert not any(".bin" in line for line in hub.log)


def test_resolve_backbone__what_is_local_goes_before_names_of_timm(hub, folder, cache, monkeypatch):
    name = "swin_base_patch4_window7_224"
    monkeypatch.chdir(folder.parent)
    folder.rename(name)
    assert resolve_backbone(name, cache) == Path(name)
    with pytest.raises(UserError, match=r"hf-hub:timm/swin_base.*has no such model"):
        resolve_backbone(f"timm:{name}", cache)


def test_timm_repository__takes_the_tag_or_the_preferred_one():
    name = "swin_tiny_patch4_window7_224"
    assert timm_repository(name) == f"timm/{name}.ms_in1k"
    assert timm_repository(f"{name}.ms_in22k") == f"timm/{name}.ms_in22k"
    with pytest.raises(UserError, match=r"no weights .*\.nope; it has: .*ms_in1k.*ms_in22k"):
        timm_repository(f"{name}.nope")
    with pytest.raises(UserError, match=r"swinv2_cr_tiny_ns_224 of timm cannot .*swin_base_patch4"):
        timm_repository("swinv2_cr_tiny_ns_224")
    with pytest.raises(UserError, match="timm has no model swim; supported: beit_base"):
        timm_repository("swim")


def test_resolve_backbone__unknown_names_what_is_near(folder, cache, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    (folder.parent.parent / "runs" / "pretrain" / "swin_b_photos").mkdir(parents=True)
    cases = {
        "run/backbon": "did you mean run/backbone",
        "runs/pretrain/swin_b_photo": "did you mean runs/pretrain/swin_b_photos?",
        "pretrain/swin_b_photos": "did you mean runs/pretrain/swin_b_photos or ",
        "someone/model": "did you mean hf-hub:someone/model?",
        "swin_tiny_patch4_window7": "did you mean swin_tiny_patch4_window7_224",
    }
    for reference, hint in cases.items():
        with pytest.raises(UserError) as caught:
            resolve_backbone(reference, cache)
        message = str(caught.value)
        assert message.startswith(f"backbone={reference}: no such folder, file, or model of timm")
        assert hint in message
        assert "hf-hub:USER/NAME, wandb:ENTITY/PROJECT/NAME:VERSION" in message


def test_default_cache__follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache() == tmp_path / ".cache" / "ssl_swin"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "ssl_swin"


@pytest.fixture
def wandb_server(monkeypatch, folder) -> list[str]:
    """Stands for the server: artifact me/swin/good:v3 is a run, me/swin/empty:v0 is no backbone."""
    asked: list[str] = []

    def download(artifact: str, save_dir: str, *, use_artifact: bool) -> str:
        assert not use_artifact
        asked.append(artifact)
        if artifact == "me/swin/gone:v1":
            raise RuntimeError("artifact 'gone:v1'\nnot found")
        if artifact == "me/swin/good:v3":
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            write(Path(save_dir) / "backbone", files)
        return save_dir

    monkeypatch.setattr(WandbLogger, "download_artifact", staticmethod(download))
    monkeypatch.setenv("WANDB_MODE", "online")
    return asked


def test_local_backbone__of_an_artifact(wandb_server, folder, cache):
    fetched = local_backbone("wandb:me/swin/good:v3", cache)
    assert cache in fetched.parents
    assert features_of(fetched).equal(features_of(folder))
    assert wandb_server == ["me/swin/good:v3"]
    assert local_backbone(str(folder), cache) == folder


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("wandb:me/swin/gone:v1", "wandb:me/swin/gone:v1 cannot be fetched: .*gone:v1' not found"),
        ("wandb:me/swin/empty:v0", "empty_v0"),
        ("wandb:me/swin/good", "as wandb:ENTITY/PROJECT/NAME:VERSION, got wandb:me/swin/good"),
        ("wandb:good:v3", "as wandb:ENTITY/PROJECT/NAME:VERSION, got wandb:good:v3"),
    ],
)
def test_local_backbone__explains(wandb_server, cache, reference, problem):
    with pytest.raises(UserError, match=problem):
        local_backbone(reference, cache)


def test_local_backbone__never_asks_for_a_key(wandb_server, cache, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match=r"needs a key .* `wandb login`, or set WANDB_API_KEY"):
        local_backbone("wandb:me/swin/good:v3", cache)
    assert wandb_server == []


NAMES = {
    "none": "random",
    "runs/pretrain/swin_b": "swin_b",
    "runs/pretrain/swin_b/backbone": "swin_b",
    "runs/pretrain/v1.5/": "v1.5",
    "/data/simmim_swin_b.pth": "simmim_swin_b",
    "swin_tiny_patch4_window7_224.ms_in22k": "swin_tiny_patch4_window7_224.ms_in22k",
    "timm:swin_tiny_patch4_window7_224": "swin_tiny_patch4_window7_224",
    "hf-hub:user/name": "user_name",
    "hf-hub:user/name@v2": "user_name_v2",
    "wandb:me/project/name:v3": "name_v3",
}


@pytest.mark.parametrize(("reference", "name"), NAMES.items())
def test_backbone_name__is_one_word_for_every_form(reference, name):
    assert backbone_name(reference) == name
    parser = OverridesParser.create()
    assert parser.parse_override(f"backbone={reference}").value() == reference
