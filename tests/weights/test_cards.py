import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from ssl_swin import __version__
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import save_backbone, save_classifier
from ssl_swin.weights.cards import Training, backbone_card, import_card, task_card, timm_card
from ssl_swin.weights.hub_card import hub_card

TRAINING = Training(
    run_name="clothes_v1",
    data="clothing",
    data_fingerprint="f00dcafe",
    num_images=1234567,
    steps=62500,
    epochs=100,
    objective="SimMIM, 60 % masked",
    losses="train 0.41, val 0.43",
)
CLASSES = ("hat", "dress", "shoes")
PHRASE, TAGS = "classification of 3 classes", ["image-classification"]
NORMALISATION = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def table(card: str) -> dict[str, str]:
    return dict(re.findall(r"^\| (\w[\w ]*) \| (.*) \|$", card, flags=re.MULTILINE))


def run_snippet(folder: Path) -> torch.nn.Module:
    """Runs the Python of the card in a folder, as a reader would who puts in the path."""
    card = (folder / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    namespace: dict = {}
    exec(snippet.replace("PATH/TO/THIS/FOLDER", str(folder)), namespace)
    return namespace["model"].eval()


@pytest.mark.parametrize("version", [1, 2])
def test_backbone_card__states_the_facts(tiny_encoder, version):
    encoder = tiny_encoder(version=version, img_size_px=(64, 128), in_chans=5)
    card = backbone_card(encoder, TRAINING, ["simmim"])
    assert front_matter(card)["library_name"] == "timm"
    assert "# clothes_v1\n" in card
    assert f"Swin Transformer V{version}" in card
    assert table(card) == {
        "objective": "SimMIM, 60 % masked",
        "data": "clothing, 1,234,567 images (fingerprint f00dcafe)",
        "length": "100 epochs, 62,500 optimiser steps",
        "last measured": "train 0.41, val 0.43",
        "input": "5 channels, 64x128 px, normalised as in config.json",
        "architecture": "width 8, depths (2, 1, 2, 1), window 4, patch 4 px",
        "made with": f"ssl_swin {__version__}",
    }


def test_task_card__states_the_facts(tiny_encoder):
    card = task_card(tiny_encoder(), TRAINING, PHRASE, TAGS, CLASSES)
    assert front_matter(card)["tags"][0] == "image-classification"
    assert "fine-tuned for classification of 3 classes" in card
    assert "Classes: hat, dress, shoes\n" in card
    assert table(card)["last measured"] == "train 0.41, val 0.43"
    assert table(card)["input"].startswith("3 channels, 64x64 px")


def test_cards__say_when_nothing_was_measured(tiny_encoder):
    unmeasured = Training("run", "data", "f00d", 10, 1, 1, "SimMIM", losses="")
    assert table(backbone_card(tiny_encoder(), unmeasured, []))["last measured"] == "nothing"
    card = task_card(tiny_encoder(), unmeasured, PHRASE, TAGS, CLASSES)
    assert table(card)["last measured"] == "nothing"


ATTACK = "a_run<script>alert(1)</script>\n---\nlicense: mit\n---\n```\n# x\n|[y](z)` *b* _i_ & \\"
SHOWN = (
    r"a_run&lt;script&gt;alert(1)&lt;/script&gt; --- license: mit --- \`\`\` \# x "
    r"\|\[y\](z)\` \*b\* \_i\_ &amp; \\"
)


@pytest.mark.parametrize("pushed", [False, True])
def test_cards__show_the_names_of_users_as_they_are(tiny_encoder, pushed):
    named = replace(TRAINING, run_name=ATTACK, data=ATTACK, objective=ATTACK, losses=ATTACK)
    plain = [backbone_card(tiny_encoder(), TRAINING, [])]
    cards = [backbone_card(tiny_encoder(), named, [])]
    plain.append(task_card(tiny_encoder(), TRAINING, PHRASE, TAGS, ("a", "b")))
    cards.append(task_card(tiny_encoder(), named, PHRASE, TAGS, ("a", ATTACK)))
    for card, expected in zip(cards, plain, strict=True):
        if pushed:
            card, expected = (hub_card(text, "user/name") for text in (card, expected))
        assert front_matter(card) == front_matter(expected)
        assert len(card.splitlines()) == len(expected.splitlines())
        assert f"\n# {SHOWN}\n" in card
        assert f"\n| data | {SHOWN}, 1,234,567 images" in card
        assert f"\n| objective | {SHOWN} |\n| data" in card
        assert f"\n| last measured | {SHOWN} |\n| input" in card
        assert card.count("```") == expected.count("```") and "<" not in card
    assert f"\nClasses: a, {SHOWN}\n" in cards[1]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("see https://evil.example", r"see https\://evil.example"),
        ("see WWW.evil.example", r"see WWW\.evil.example"),
        ("mail me@evil.example or @you", r"mail me\@evil.example or \@you"),
        ("![x](y) <img>", r"!\[x\](y) &lt;img&gt;"),
        (
            "a\x1b[2Jb\u202ec\udcffd\0e",
            "a\ufffd\\[2Jb\ufffdc\ufffdd\ufffde",
        ),
        ("swin_t v1.2: 3 - 4", "swin_t v1.2: 3 - 4"),
    ],
)
def test_cards__of_all_kinds_link_and_steer_nothing(tiny_encoder, name, shown):
    named = replace(TRAINING, run_name=name)
    cards = [
        backbone_card(tiny_encoder(), named, []),
        task_card(tiny_encoder(), named, PHRASE, TAGS, [name]),
        timm_card(name, 7),
        import_card(tiny_encoder(), f"{name}.pth", name),
    ]
    for card in cards:
        card.encode()
    for card in cards[:3]:
        assert f"# {shown}\n" in card
    assert f"\nClasses: {shown}\n" in cards[1]
    assert f"from {shown}.pth. Of its tensors: {shown}." in cards[3]


def test_backbone_card__its_code_runs(tmp_path, tiny_encoder):
    encoder = tiny_encoder()
    card = backbone_card(encoder, TRAINING, ["simmim"])
    save_backbone(tmp_path, encoder, **NORMALISATION, card=card)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = run_snippet(tmp_path)(images)
        torch.testing.assert_close(features, encoder(images).mean(dim=(2, 3)))


def test_task_card__its_code_runs(tmp_path, tiny_encoder):
    classifier = Classifier(tiny_encoder(), num_classes=3)
    card = task_card(classifier.encoder, TRAINING, PHRASE, TAGS, CLASSES)
    save_classifier(tmp_path, classifier, classes=CLASSES, **NORMALISATION, card=card)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(run_snippet(tmp_path)(images), classifier(images))
