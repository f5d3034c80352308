import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import (
    check_same_architecture,
    find_backbone,
    load_backbone,
    save_backbone,
    save_classifier,
)

both_versions = pytest.mark.parametrize("version", [1, 2])


def save(folder: Path, encoder: Encoder) -> Path:
    channels = range(encoder.in_chans)
    mean, std = [0.4 + 0.01 * c for c in channels], [0.2 + 0.01 * c for c in channels]
    save_backbone(folder, encoder, mean=mean, std=std, card="# A card\n")
    return folder


@pytest.fixture
def folder(tmp_path, tiny_encoder) -> Path:
    return save(tmp_path / "backbone", tiny_encoder())


def images_for(encoder: Encoder) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, encoder.in_chans, *encoder.img_size_px, generator=generator)


def assert_same_map(timms, encoder, images):
    """Our blocks add up in another order than timm's: equal to rounding."""
    theirs = timms.forward_features(images).permute(0, 3, 1, 2)
    torch.testing.assert_close(theirs, encoder(images), rtol=0, atol=3e-5)


@both_versions
@pytest.mark.parametrize(
    "changes",
    [
        {"in_chans": 1},
        {"in_chans": 3},
        {"in_chans": 5},
        {"img_size_px": (64, 128)},
        {"img_size_px": (32, 64)},
        {"patch_size_px": 2, "depths": (1, 1, 2), "num_heads": (1, 2, 4)},
    ],
    ids=str,
)
def test_save_backbone__timm_computes_the_same(tmp_path, tiny_encoder, version, changes):
    encoder = tiny_encoder(version=version, **changes)
    save(tmp_path, encoder)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    images = images_for(encoder)
    with torch.no_grad():
        assert_same_map(model, encoder, images)
        pooled, expected = model(images), encoder(images).mean(dim=(2, 3))
    torch.testing.assert_close(pooled, expected, rtol=0, atol=3e-5)

    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (encoder.in_chans, *encoder.img_size_px)
    assert data["mean"] == pytest.approx([0.4 + 0.01 * c for c in range(encoder.in_chans)])
    assert data["std"] == pytest.approx([0.2 + 0.01 * c for c in range(encoder.in_chans)])


def test_save_backbone__stored_windows_reach_timm(tmp_path, tiny_encoder):
    encoder = tiny_encoder(
        version=2, img_size_px=128, window_size=8, pretrained_window_sizes=(4, 4, 4, 2)
    )
    save(tmp_path, encoder)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    images = images_for(encoder)
    with torch.no_grad():
        assert_same_map(model, encoder, images)


def test_save_backbone__files(folder):
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert (folder / "README.md").read_text() == "# A card\n"
    assert not any(name.startswith("head") for name in load_file(folder / "model.safetensors"))


def test_save_backbone__configuration_states_the_input(tmp_path, tiny_encoder):
    save(tmp_path, tiny_encoder(img_size_px=(64, 128), in_chans=1))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_classes"] == 0
    assert config["num_features"] == 64
    assert config["pretrained_cfg"]["input_size"] == [1, 64, 128]
    assert config["pretrained_cfg"]["mean"] == [0.4]
    assert config["pretrained_cfg"]["std"] == [0.2]


def test_save_backbone__replaces_an_older_one(folder, tiny_encoder):
    newer = tiny_encoder(seed=1, depths=(1, 1, 1, 1))
    save(folder, newer)
    images = images_for(newer)
    with torch.no_grad():
        assert load_backbone(folder).encoder.eval()(images).equal(newer(images))


@both_versions
def test_save_classifier__timm_gives_the_same_scores_and_names(tmp_path, tiny_encoder, version):
    classifier = Classifier(tiny_encoder(version=version), num_classes=3).eval()
    torch.nn.init.normal_(classifier.head.bias)
    classes = ["hat", "dress", "shoes"]
    mean = std = [0.5, 0.5, 0.5]
    save_classifier(tmp_path, classifier, classes=classes, mean=mean, std=std, card="")
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = images_for(classifier.encoder)
    with torch.no_grad():
        torch.testing.assert_close(model(images), classifier(images), rtol=0, atol=1e-6)
        headless = load_backbone(tmp_path).encoder.eval()
        assert headless(images).equal(classifier.encoder(images))
    assert model.num_classes == 3
    assert list(model.pretrained_cfg["label_names"]) == classes


def test_save_classifier__of_a_vit(tmp_path):
    torch.manual_seed(0)
    encoder = beit(img_size_px=32, patch_size_px=8, embed_dim=8, depth=2, num_heads=2)
    classifier = Classifier(encoder, num_classes=3).eval()
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_classifier(
        tmp_path, classifier, classes=["a", "b", "c"], mean=[0.5] * 3, std=[0.5] * 3, card=""
    )
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = images_for(encoder)
    with torch.no_grad():
        torch.testing.assert_close(model(images), classifier(images), rtol=0, atol=1e-6)
        assert load_backbone(tmp_path).encoder.eval()(images).equal(classifier.encoder(images))
    assert model.get_classifier().out_features == 3


@both_versions
def test_load_backbone__round_trip_to_the_bit(tmp_path, tiny_encoder, version):
    encoder = tiny_encoder(version=version, img_size_px=(64, 128), in_chans=5)
    loaded = load_backbone(save(tmp_path, encoder))
    assert loaded.mean == pytest.approx((0.4, 0.41, 0.42, 0.43, 0.44))
    assert loaded.std == pytest.approx((0.2, 0.21, 0.22, 0.23, 0.24))
    assert loaded.encoder.model_args == encoder.model_args
    assert loaded.encoder.architecture == encoder.architecture
    ours, theirs = encoder.state_dict(), loaded.encoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    images = images_for(encoder)
    with torch.no_grad():
        assert loaded.encoder.eval()(images).equal(encoder(images))


@both_versions
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"img_size_px": 96}, ((96, 96), 6)),
        ({"img_size_px": (64, 128)}, ((64, 128), 4)),
        ({"img_size_px": 96, "window_size": 3}, ((96, 96), 3)),
        ({"window_size": 2}, ((64, 64), 2)),
    ],
    ids=str,
)
def test_load_backbone__at_another_size(tmp_path, tiny_encoder, version, size, expected):
    encoder = tiny_encoder(version=version)
    loaded = load_backbone(save(tmp_path / "old", encoder), **size).encoder.eval()
    assert (loaded.img_size_px, loaded.model_args["window_size"]) == expected
    images = images_for(loaded)
    with torch.no_grad():
        assert loaded(images).equal(resize_encoder(encoder, **size).eval()(images))
    save(tmp_path / "new", loaded)
    model = timm.create_model(f"local-dir:{tmp_path}/new", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        assert_same_map(model, loaded, images)


def test_load_backbone__a_size_that_does_not_fit(folder):
    with pytest.raises(UserError, match="no window suits an image of 80 x 80 px"):
        load_backbone(folder, img_size_px=80)


def test_load_backbone__options_of_the_training_to_come(folder):
    loaded = load_backbone(folder, drop_path_rate=0.5, grad_checkpointing=True).encoder
    options = {"img_size_px": 96, "drop_path_rate": 0.5, "grad_checkpointing": True}
    for encoder in (loaded, load_backbone(folder, **options).encoder):
        check_options(encoder)
    plain = load_backbone(folder).encoder
    assert not any(stage.grad_checkpointing for stage in plain.model.layers)


def check_options(encoder: Encoder) -> None:
    blocks = [block for stage in encoder.model.layers for block in stage.blocks]
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert all(stage.grad_checkpointing for stage in encoder.model.layers)


def test_find_backbone__a_run_folder_or_the_backbone_itself(folder):
    assert find_backbone(folder) == folder
    assert find_backbone(folder.parent) == folder
    assert find_backbone(str(folder.parent)) == folder


def test_find_backbone__no_such_folder(tmp_path):
    with pytest.raises(UserError, match=r"backbone=.*nowhere: no such folder"):
        find_backbone(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_find_backbone__incomplete(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match="is not a backbone: neither it nor its sub-folder"):
        find_backbone(folder)
    with pytest.raises(UserError, match="is not a backbone"):
        load_backbone(folder.parent)


def edited(folder: Path, *path: str, value: object = None) -> bytes:
    """The configuration with one entry replaced, or removed where there is no value."""
    config = json.loads((folder / "config.json").read_text())
    node = config
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return json.dumps(config).encode()


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"crop_pct": "a"}, "could not convert"),
        ({"crop_pct": 7}, "crop_pct is 7"),
        ({"crop_pct": -1}, "crop_pct is -1"),
        ({"crop_pct": float("nan")}, "crop_pct is nan"),
        ({"crop_pct": [1]}, "config.json is not a model configuration"),
        ({"mean": ["a", "b", "c"]}, "could not convert"),
        ({"mean": [0.5]}, "1 means and 3 deviations for 3 channels"),
        ({"mean": None}, "config.json is not a model configuration"),
        ({"std": [0, 1, 1]}, "the latter above 0"),
        ({"std": [float("nan")] * 3}, "must be finite"),
    ],
)
def test_load_backbone__preparation_that_cannot_be(folder, told, problem):
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= told
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=problem):
        load_backbone(folder)


@pytest.mark.parametrize("content", [b"", b'{"architecture": "swi', b"[1, 2]", b"\xff\xfe\x00"])
def test_load_backbone__damaged_configuration(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is not a model configuration"):
        load_backbone(folder)


@pytest.mark.parametrize(
    "path",
    [
        ("architecture",),
        ("model_args",),
        ("model_args", "img_size"),
        ("model_args", "patch_size"),
        ("pretrained_cfg",),
        ("pretrained_cfg", "mean"),
        ("pretrained_cfg", "std"),
    ],
)
def test_load_backbone__incomplete_configuration(folder, path):
    (folder / "config.json").write_bytes(edited(folder, *path))
    with pytest.raises(UserError, match=f"not a model configuration: KeyError.'{path[-1]}'"):
        load_backbone(folder)


def test_load_backbone__another_architecture(folder):
    content = edited(folder, "architecture", value="vit_base_patch16_224")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: the architecture 'vit_base_patch16_224'"):
        load_backbone(folder)


def test_load_backbone__truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is not a readable safetensors file"):
        load_backbone(folder)


def test_load_backbone__weights_of_another_shape(folder):
    (folder / "config.json").write_bytes(edited(folder, "model_args", "window_size", value=2))
    with pytest.raises(UserError, match=r"(?s)does not fit the config\.json .*_bias_table"):
        load_backbone(folder)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_load_backbone__weights_too_few_or_too_many(folder, change):
    state = load_file(folder / "model.safetensors")
    if change == "missing":
        del state["norm.weight"]
    else:
        state["stranger.weight"] = torch.zeros(1)
    save_file(state, folder / "model.safetensors")
    name = "norm.weight" if change == "missing" else "stranger.weight"
    with pytest.raises(UserError, match=f"(?s)does not fit the config.json beside it: .*{name}"):
        load_backbone(folder)


def test_check_same_architecture__accepts_itself(folder, tiny_encoder):
    loaded = load_backbone(folder, drop_path_rate=0.3).encoder
    check_same_architecture(loaded, tiny_encoder(seed=5))


def test_check_same_architecture__names_what_differs(tiny_encoder):
    ours, asked = tiny_encoder(), tiny_encoder(depths=(1, 1, 1, 1), in_chans=1)
    expected = (
        r"asked for: depths is \(2, 1, 2, 1\), asked for \(1, 1, 1, 1\); "
        r"in_chans is 3, asked for 1 \(leave the model out"
    )
    with pytest.raises(UserError, match=expected):
        check_same_architecture(ours, asked)
    with pytest.raises(UserError, match=r"architecture is swin_tiny.*, asked for swinv2_tiny"):
        check_same_architecture(ours, tiny_encoder(version=2))


@pytest.mark.parametrize("ratio", [0.875, 0.95, 1.0])
def test_save_backbone__timm_evaluates_on_the_crop_that_was_evaluated_on(
    tmp_path, tiny_encoder, ratio
):
    encoder, moments = tiny_encoder(), {"mean": [0.5] * 3, "std": [0.25] * 3, "card": ""}
    save_backbone(tmp_path / "b", encoder, **moments, crop_ratio=ratio)
    classifier = Classifier(encoder, num_classes=2)
    save_classifier(tmp_path / "c", classifier, classes="ab", **moments, crop_ratio=ratio)
    for folder in ("b", "c"):
        model = timm.create_model(f"local-dir:{tmp_path / folder}", pretrained=True)
        assert timm.data.resolve_model_data_config(model)["crop_pct"] == ratio
