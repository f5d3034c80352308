"""Every way in which transformers writes a Swin."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from ssl_swin.errors import UserError
from ssl_swin.weights.backbone import load_backbone
from ssl_swin.weights.formats.importing import import_weights
from ssl_swin.weights.sources import locate_backbone

SHAPE = {
    "image_size": 64,
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [1, 2],
    "window_size": 4,
    "encoder_stride": 8,
}
FAMILIES = ("Swin", "Swinv2")
CLASSES = ("Model", "ForMaskedImageModeling", "ForImageClassification")


def theirs(family: str, kind: str) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SHAPE, num_labels=3)
    model: nn.Module = getattr(transformers, f"{family}{kind}")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def features(model: nn.Module) -> torch.Tensor:
    inner = getattr(model, "swin", getattr(model, "swinv2", model))
    with torch.no_grad():
        return inner(images()).last_hidden_state.transpose(1, 2).view(1, 16, 8, 8)


def images() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("way", ["whole", "shards", "state_dict", "variant"])
def test_import__of_a_class_saved_in_a_way(
    family: str, kind: str, way: str, tmp_path: Path
) -> None:
    model, path = theirs(family, kind), tmp_path / "given"
    sizes = {}
    if way == "state_dict":
        path = tmp_path / "given.bin"
        torch.save(model.state_dict(), path)
        sizes = {"img_size_px": 64, "window_size": 4}
    elif way == "variant":
        model.save_pretrained(path, variant="fp32")
    else:
        model.save_pretrained(path, max_shard_size="20KB" if way == "shards" else "1GB")
    if way == "shards":
        assert len(list(path.glob("*.safetensors"))) > 1
    imported, report = import_weights(path, **sizes)
    with torch.no_grad():
        ours = imported.encoder.eval()(images())
    torch.testing.assert_close(ours, features(model), rtol=0, atol=1e-5)
    assert (imported.simmim is not None) == (kind == "ForMaskedImageModeling")
    if kind == "ForImageClassification":
        assert "a head of 3 classes, which a backbone has not" in {e.reason for e in report.dropped}


def test_import__of_a_backbone_for_detection(tmp_path: Path) -> None:
    config = transformers.SwinConfig(
        **SHAPE | {"image_size": 128, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
        out_features=["stage1", "stage4"],
    )
    transformers.SwinBackbone(config).save_pretrained(tmp_path / "given")
    report = import_weights(tmp_path / "given")[1]
    dropped = {entry.name: entry.reason for entry in report.dropped}
    of_a_stage = "a norm of an earlier stage's output, which only a detector has"
    expected = {
        "hidden_states_norms.stage1": of_a_stage,
        "swin.layernorm": "a norm that a backbone for detection does not use",
    }
    assert dropped == {f"{n}.{p}": r for n, r in expected.items() for p in ("weight", "bias")}
    assert "hidden_states_norms.stage4.weight" in {entry.name for entry in report.renamed}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    theirs("Swin", "Model").save_pretrained(tmp_path / "given", max_shard_size="20KB")
    return tmp_path / "given"


def index_of(folder: Path) -> Path:
    return folder / "model.safetensors.index.json"


def test_import__of_one_shard_or_of_the_index_takes_all(shards: Path) -> None:
    whole = import_weights(shards)[0].encoder.state_dict()
    for file in (*shards.glob("*.safetensors"), index_of(shards)):
        state = import_weights(file)[0].encoder.state_dict()
        assert all(tensor.equal(whole[name]) for name, tensor in state.items())


def test_import__of_shards_of_pickles(shards: Path) -> None:
    from safetensors.torch import load_file

    index = json.loads(index_of(shards).read_text())
    for file in list(shards.glob("*.safetensors")):
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()
    index_of(shards).unlink()
    by_tensor = {n: f.replace(".safetensors", ".bin") for n, f in index["weight_map"].items()}
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": by_tensor}))
    assert import_weights(shards)[0].encoder.img_size_px == (64, 64)


def test_locate_backbone__takes_shards_and_notices_a_change(shards: Path, tmp_path: Path) -> None:
    first = locate_backbone(str(shards), tmp_path / "cache")
    assert first.folder.name.startswith("given-")
    assert locate_backbone(str(shards), tmp_path / "cache") == first
    assert load_backbone(first.folder).encoder.img_size_px == (64, 64)
    config = json.loads((shards / "config.json").read_text())
    (shards / "config.json").write_text(json.dumps(config | {"unknown": 1}))
    assert locate_backbone(str(shards), tmp_path / "cache").folder != first.folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a JSON configuration: it holds no object"),
        ("{", "is not a JSON configuration"),
        ("[" * 100_000, "is not a JSON configuration"),
        ("{}", "is no index of weights: it has no weight_map"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "names '../x.safetensors', which is no file"),
        (
            '{"weight_map": {"a": "/etc/passwd"}}',
            "names '/etc/passwd', which is no file of weights",
        ),
        (
            '{"weight_map": {"a": "b.safetensors"}}',
            "1 files, of which 1 are missing: b.safetensors",
        ),
    ],
)
def test_import__refuses_an_index(shards: Path, content: str, message: str) -> None:
    index_of(shards).write_text(content)
    with pytest.raises(UserError, match=message):
        import_weights(shards)


def test_import__refuses_a_shard_that_is_not_as_the_index_says(shards: Path) -> None:
    index = json.loads(index_of(shards).read_text())
    first, second = sorted(set(index["weight_map"].values()))[:2]
    (shards / first).write_bytes((shards / second).read_bytes())
    with pytest.raises(UserError, match=f"{first} does not hold what model.safetensors.index.json"):
        import_weights(shards)
