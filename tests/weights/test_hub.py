import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hub_server import TOKEN, HubServer, connect, serve_hub
from huggingface_hub import constants
from PIL import Image
from torch import Tensor

from ssl_swin import predict
from ssl_swin.cli import main
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import load_backbone, save_backbone, save_classifier
from ssl_swin.weights.hub import download_backbone, push_backbone
from ssl_swin.weights.hub_card import hub_card

CARD = '---\ntags: [simmim]\n---\n# A run\n\ncreate_model("local-dir:PATH/TO/THIS", ...)\n'
MOMENTS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A hub for this process, and a token for it."""
    with serve_hub() as server:
        connect(server, tmp_path / "hub_cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def folder(tmp_path, tiny_encoder) -> Path:
    save_backbone(tmp_path / "backbone", tiny_encoder(), card=CARD, **MOMENTS)
    return tmp_path / "backbone"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def features_of(encoder: SwinEncoder) -> Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return encoder.eval()(images)


def test_push_backbone__comes_back_the_same(hub, folder):
    assert push_backbone(folder, "user/name") == f"{hub.root}/user/name"
    fetched = load_backbone(download_backbone("user/name"))
    assert features_of(fetched.encoder).equal(features_of(load_backbone(folder).encoder))
    assert (fetched.mean, fetched.std) == ((0.5,) * 3, (0.25,) * 3)


def test_push_backbone__is_one_commit_of_three_files(hub, folder):
    (folder / "notes.txt").write_text("not for the hub")
    push_backbone(folder, "user/name")
    _, message = hub.repositories["user/name"].messages
    assert message.startswith("Upload a backbone with ssl_swin ")
    pushed = hub.files_of("user/name")
    assert pushed.keys() == {"config.json", "model.safetensors", "README.md"}
    assert pushed["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_push_backbone__again_uploads_only_what_changed(hub, folder, tiny_encoder):
    push_backbone(folder, "user/name")
    push_backbone(folder, "user/name")
    assert len(hub.repositories["user/name"].commits) == 2  # the empty one, and one with files
    save_backbone(folder, tiny_encoder(seed=1), card=CARD, **MOMENTS)
    push_backbone(folder, "user/name")
    fetched = load_backbone(download_backbone("user/name"))
    assert features_of(fetched.encoder).equal(features_of(load_backbone(folder).encoder))


def test_push_backbone__fills_in_the_card(hub, folder):
    push_backbone(folder, "user/name", license_id="mit")
    _, front, body = hub.files_of("user/name")["README.md"].decode().split("---\n")
    assert yaml.safe_load(front) == {
        "tags": ["simmim"],
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "license": "mit",
    }
    assert body.startswith('# A run\n\ncreate_model("hf-hub:user/name", ...)\n\n## With trans')
    assert 'AutoModel.from_pretrained("user/name")' in body and "pipeline" not in body


def test_push_backbone__takes_a_classifier_with_its_head(hub, tmp_path, tiny_encoder):
    classifier = Classifier(tiny_encoder(), num_classes=2)
    save_classifier(tmp_path / "c", classifier, classes=["a", "b"], card="", **MOMENTS)
    push_backbone(tmp_path / "c", "user/name")
    assert b"pipeline_tag: image-classification" in hub.files_of("user/name")["README.md"]
    assert (
        b'pipeline("image-classification", model="user/name")'
        in (hub.files_of("user/name")["README.md"])
    )
    assert b"head.fc.weight" in hub.files_of("user/name")["model.safetensors"]


def test_push_backbone__private_is_private(hub, folder, monkeypatch):
    push_backbone(folder, "user/name", private=True)
    assert hub.repositories["user/name"].private
    download_backbone("user/name")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "another_cache"))
    with pytest.raises(UserError, match=r"no such model, or it is private.*hf auth login"):
        download_backbone("user/name")


def test_push_backbone__refuses_to_publish_what_should_be_private(hub, folder):
    hub.add("user/name", {})
    with pytest.raises(UserError, match="exists and is public: nothing was uploaded"):
        push_backbone(folder, "user/name", private=True)
    assert len(hub.repositories["user/name"].commits) == 1


def test_push_backbone__needs_a_loadable_folder(hub, folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        push_backbone(folder, "user/name")
    assert hub.log == []


@pytest.mark.parametrize("name", ["name", "a/b/c", "user/", "user/a name"])
def test_push_backbone__needs_user_and_name(hub, folder, name):
    with pytest.raises(UserError, match=f"as USER/NAME, got '{name}'"):
        push_backbone(folder, name)


def test_push_backbone__needs_a_token(hub, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="token with write access: log in with `hf auth login`"):
        push_backbone(folder, "user/name")
    assert hub.log == []


def test_push_backbone__explains_a_token_that_may_not(hub, folder, monkeypatch):
    with pytest.raises(UserError, match=r"others/name: .* refuses access \(403\)"):
        push_backbone(folder, "others/name")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"user/name: .* refuses access \(401\).*hf auth login"):
        push_backbone(folder, "user/name")


def test_push_backbone__passes_on_what_the_hub_says_of_the_card(hub, folder):
    with pytest.raises(UserError, match=r'Invalid metadata.*"license" must be one of \[mit'):
        push_backbone(folder, "user/name", license_id="no such licence")


def test_download_backbone__takes_a_revision(hub, folder, tiny_encoder):
    first = hub.add("user/name", files_in(folder))
    old = features_of(load_backbone(folder).encoder)
    save_backbone(folder, tiny_encoder(seed=1), card=CARD, **MOMENTS)
    hub.repositories["user/name"].commit(files_in(folder))
    fetched = load_backbone(download_backbone(f"user/name@{first}"))
    assert features_of(fetched.encoder).equal(old)
    newest = load_backbone(download_backbone("user/name"))
    assert not features_of(newest.encoder).equal(old)
    with pytest.raises(UserError, match=r"hf-hub:user/name@v9: .* no such revision"):
        download_backbone("user/name@v9")


def test_download_backbone__says_nothing_of_this_machine(hub, folder):
    hub.add("user/name", files_in(folder))
    download_backbone("user/name")
    assert all("torch" not in agent and "agent/" not in agent for agent in hub.agents)
    assert "GET /api/agent-harnesses" not in hub.log
    assert not constants.HF_HUB_DISABLE_TELEMETRY  # others' calls are their own affair


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, "no config.json and no model.safetensors"),
        ({"config.json": b"{}", "pytorch_model.bin": b"pickle"}, "no model.safetensors,"),
    ],
)
def test_download_backbone__needs_our_layout(hub, files, missing):
    hub.add("user/name", files)
    with pytest.raises(UserError, match=f"{missing}.*pytorch_model.bin are never loaded"):
        download_backbone("user/name")
    assert not any(".bin" in line for line in hub.log)


def test_download_backbone__explains_absence_gates_and_names(hub):
    with pytest.raises(UserError, match=r"hf-hub:user/none: http.* has no such model"):
        download_backbone("user/none")
    hub.add("user/gated", {}, gated=True)
    with pytest.raises(UserError, match="access must be asked for"):
        download_backbone("user/gated")
    for name in ("a/b/c", "user/na me", ""):
        with pytest.raises(UserError, match="give USER/NAME or USER/NAME@REVISION"):
            download_backbone(name)


@pytest.mark.parametrize(
    ("status", "explanation"),
    [(403, "refuses access"), (500, "an error, status 500")],
)
def test_download_backbone__explains_refusals(hub, status, explanation):
    hub.status = status
    with pytest.raises(UserError, match=explanation):
        download_backbone("user/name")


def test_download_backbone__without_a_network(hub, folder, monkeypatch):
    hub.add("user/name", files_in(folder))
    before = download_backbone("user/name")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert download_backbone("user/name") == before
    with pytest.raises(UserError, match=r"no connection to http://127.0.0.1:9 .*HF_ENDPOINT"):
        download_backbone("user/another")


def test_download_backbone__offline(hub, folder, monkeypatch):
    hub.add("user/name", files_in(folder))
    before = download_backbone("user/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download_backbone("user/name") == before
    with pytest.raises(
        UserError,
        match=r"offline mode is on, .*: unset HF_HUB_OFFLINE",
    ):
        download_backbone("user/another")


def test_download_backbone__notices_a_short_file(hub, folder):
    hub.add("user/name", files_in(folder))
    hub.damage = lambda content: content[:-1]
    with pytest.raises(UserError, match="should be of size"):
        download_backbone("user/name")


def test_download_backbone__notices_changed_bytes(hub, folder):
    hub.add("user/name", files_in(folder))
    hub.damage = lambda content: content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(UserError, match="arrived damaged: its hash is") as caught:
        download_backbone("user/name")
    hub.damage = bytes
    damaged = Path(str(caught.value).rpartition("delete ")[2].removesuffix(" and try again"))
    damaged.unlink()
    download_backbone("user/name")


@pytest.mark.parametrize("config", [b"[]", b"null", b"{", b"", b"\xff\xfe", b"[" * 100_000])
def test_download_backbone__notices_a_configuration_that_is_none(hub, folder, config):
    hub.add("user/name", files_in(folder) | {"config.json": config})
    with pytest.raises(
        UserError, match=r"config\.json is no JSON object.*; delete .* and try again"
    ):
        download_backbone("user/name")


def test_hub_card__of_no_card_says_how_to_load():
    card = hub_card("", "user/name")
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "tags": ["timm"],
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
    }
    assert (
        '# name\n\n```python\nimport timm\n\nmodel = timm.create_model("hf-hub:user/name"' in card
    )


def test_hub_card__of_a_card_without_metadata_keeps_its_text(caplog):
    body = "# A run\n\n---\na: rule above, no metadata\n---\n"
    assert hub_card(body, "user/name").split("---\n", 2)[2].startswith(body)
    assert not caplog.records


def test_hub_card__says_how_transformers_load_it_once_and_of_its_own_place():
    first = hub_card("# A run\n", "user/name", is_classifier=True)
    after = hub_card(first + "\n## Mine\n\nstays\n", "other/place")
    assert after.count("## With transformers") == 1 and "user/name" not in after
    assert "## Mine\n\nstays\n" in after
    with_import = hub_card("", "user/name", timm_import="import ssl_swin.encoders.swin_mlp; ")
    assert "import ssl_swin.encoders.swin_mlp  # for timm\nfrom transformers import" in with_import


def test_hub_card__of_other_images_than_rgb_has_no_lines_for_transformers():
    card = hub_card("", "user/name", channels=4)
    assert "Not by its name alone: its images have 4 channels" in card and "AutoModel" not in card


def test_hub_card__keeps_metadata_that_it_does_not_know():
    front = "license: mit\nbase_model: a/b\nmine:\n  steps: [1, 2]\ntags: [x]\n"
    card = hub_card(f"---\n{front}---\n# A run\n", "user/name")
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "license": "mit",
        "base_model": "a/b",
        "mine": {"steps": [1, 2]},
        "tags": ["x"],
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
    }


@pytest.mark.parametrize("front", ["a: [", "just words", "1: a number"])
def test_hub_card__needs_metadata_that_is_yaml(front):
    with pytest.raises(UserError, match=r"metadata in front of README\.md"):
        hub_card(f"---\n{front}\n---\n# A run\n", "user/name")


def test_push__prints_how_to_get_it_back(hub, folder, capsys):
    assert main(["push", str(folder), "user/name", "--license", "mit"]) == 0
    printed = capsys.readouterr().out
    assert f"to {hub.root}/user/name\n" in printed
    assert 'timm.create_model("hf-hub:user/name", pretrained=True, num_classes=0)' in printed
    assert "next: ssl-swin linear-probe backbone=hf-hub:user/name\n" in printed
    assert main(["push", str(folder), "name"]) == 2


# What anyone with timm does with a pushed backbone, steered by the environment alone.
WITH_TIMM = """
import timm, torch
model = timm.create_model("hf-hub:user/name", pretrained=True, num_classes=0).eval()
images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
torch.save(model.forward_features(images).detach(), "features.pt")
"""


@pytest.mark.slow
def test_push__timm_loads_it_by_its_name(hub, folder, tmp_path):
    push_backbone(folder, "user/name")
    environment = os.environ | {"HF_ENDPOINT": hub.root, "HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", WITH_TIMM], cwd=tmp_path, env=environment, check=True)
    features = torch.load(tmp_path / "features.pt").permute(0, 3, 1, 2)
    ours = features_of(load_backbone(folder).encoder)
    torch.testing.assert_close(features, ours, rtol=0, atol=3e-5)
    assert list((tmp_path / "home" / "hub").glob("models--user--name"))
    config = json.loads(hub.files_of("user/name")["config.json"])
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]


# What anyone with transformers does with what was pushed, steered by the environment alone.
WITH_TRANSFORMERS = """
import torch
from pathlib import Path
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, pipeline
classify = pipeline("image-classification", model="user/classifier")
photos = sorted(Path("photos").iterdir())
said = [classify(str(photo), function_to_apply="none") for photo in photos]
scores = [[entry["score"] for entry in sorted(each, key=lambda e: e["label"])] for each in said]
processor = AutoImageProcessor.from_pretrained("user/name")
model = AutoModel.from_pretrained("user/name").eval()
inputs = [processor(Image.open(photo), return_tensors="pt") for photo in photos]
vectors = torch.cat([model(**each).pooler_output for each in inputs])
import timm
theirs = timm.create_model("hf-hub:user/classifier", pretrained=True).eval()
pixels = torch.cat([each.pixel_values for each in inputs])
said = [torch.tensor(scores), vectors, theirs(pixels), pixels]
torch.save([each.detach() for each in said], "said.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_push__transformers_and_timm_say_what_we_do(
    hub, folder, tmp_path, tiny_encoder, monkeypatch, version
):
    """Their answers to their pixels are ours; their pixels are ours but for rounding to a level.

    Pictures are scaled down, up, and, the first, not at all: that is equal from file to score.
    """
    monkeypatch.chdir(tmp_path)
    classifier = Classifier(tiny_encoder(version=version), num_classes=2)
    for place in ("classifier", "backbone"):
        what = {"classes": ["a", "b"]} if place == "classifier" else {}
        save = save_classifier if what else save_backbone
        network = classifier if what else classifier.encoder
        save(Path(place), network, **what, **MOMENTS, card="", crop_ratio=0.75)
    push_backbone(Path("backbone"), "user/name")
    push_backbone(Path("classifier"), "user/classifier")
    draw(Path("photos"))
    environment = os.environ | {"HF_ENDPOINT": hub.root, "HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", WITH_TRANSFORMERS], env=environment, check=True)
    scores, vectors, by_timm, images = torch.load("said.pt")
    to_rounding = {"rtol": 1e-5, "atol": 1e-5}
    with torch.no_grad():
        ours = classifier.eval()(images)
        torch.testing.assert_close(scores, ours, **to_rounding)
        torch.testing.assert_close(by_timm, ours, **to_rounding)
        pooled = classifier.encoder.pool(classifier.encoder(images))
        torch.testing.assert_close(vectors, pooled, **to_rounding)
    files = sorted(Path("photos").iterdir())
    arrays = [np.array(Image.open(path).convert("RGB")) for path in files]
    crop = CentreCrop((64, 64), crop_ratio=0.75)
    views = [
        crop.on_pixels(torch.from_numpy(array).permute(2, 0, 1), np.random.default_rng(0))
        for array in arrays
    ]
    levels = (images * 0.25 + 0.5) * 255
    apart = (levels - torch.stack(views)).abs()
    assert apart.max() < 2.01 and apart.mean() < 0.02
    first = predict("classifier", "photos", scores="logit").scores[0]
    torch.testing.assert_close(scores[0], first, **to_rounding)


def draw(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate([(85, 85), (90, 70), (64, 64), (130, 200), (201, 97), (40, 333)]):
        blocks = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8))
        blocks.resize(size[::-1], Image.Resampling.BILINEAR).save(folder / f"{number}.png")
