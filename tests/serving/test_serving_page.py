"""The page of the server: what it may do, and in Chromium what it shows."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import yaml
from chromium import Pages, launched
from PIL import Image
from serving_worlds import MEAN, STD, Process, asking, served_process, write_run

from ssl_swin.cli import main
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.launch.pretrained import masked_model_of
from ssl_swin.masking import expand_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.serving.page import PAGE, POLICY
from ssl_swin.serving.pictures import reconstruction_question
from ssl_swin.serving.service import Service
from ssl_swin.weights.backbone import load_backbone, save_backbone, save_extra_weights

ATTACK = "<img src=x onerror=alert(1)>.png"
OPTIONS = ("--device", "cpu", "--workers", "0")


def pretrained(run: Path) -> SimMIM:
    """Writes what a pretraining leaves behind, with random weights."""
    torch.manual_seed(2)
    encoder = swin(
        img_size_px=64, window_size=4, embed_dim=8, depths=(1, 1, 1), num_heads=(1, 2, 2), version=1
    )
    settings = {"mask_ratio": 0.5, "mask_patch_size_px": 16}
    model = SimMIM(encoder, **settings).eval()
    with torch.no_grad():
        model.decoder[0].bias.uniform_(-1, 1)
    save_backbone(run / "backbone", encoder, mean=MEAN, std=STD, card="")
    save_extra_weights(run / "backbone", model.extra_weights())
    objective = {"_target_": "ssl_swin.SimMIM", "_partial_": True, **settings}
    (run / "config.yaml").write_text(yaml.safe_dump({"objective": objective}))
    return model


def draw_photos(folder: Path, number: int = 9) -> None:
    for index in range(number):
        path = folder / ("cat", "dog")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((80, 66), Image.Resampling.BICUBIC).save(path)


def pixels_of(url: str) -> np.ndarray:
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_page__asks_for_nothing_elsewhere_and_its_policy_names_it() -> None:
    assert not re.findall(r"https?:|//\w|@import|url\(", PAGE)
    assert len(re.findall(r"<(?:script|style)\b", PAGE)) == 2
    assert " on" not in "".join(re.findall(r"<[^>]*\son\w+=", PAGE)), "a policy forbids these"

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        answer = await client.get("/")
        assert answer.text == PAGE and answer.headers["content-security-policy"] == POLICY
        assert answer.headers["content-type"].startswith("text/html")
        about = (await client.get("/about")).json()
        assert about["questions"] == {"mean": "the mean"} and about["limits"]["queue"] == 128

    asking(ask)


def test_reconstruction__is_that_of_the_objective(tmp_path: Path) -> None:
    model = pretrained(tmp_path)
    backbone = load_backbone(tmp_path)
    loaded = masked_model_of(tmp_path, backbone)
    assert loaded is not None
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())
    device = torch.device("cpu")
    question = reconstruction_question(loaded, MEAN, STD, device, "float32")
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    alone = question.compute(pixels[:1])
    together = question.compute(pixels)
    assert [*together] == ["input", "masked", "prediction"]
    input_, masked, prediction = (value.numpy() for value in together.values())
    np.testing.assert_array_equal(input_, pixels.permute(0, 2, 3, 1))
    is_grey = (masked == 118).all(axis=-1)
    assert is_grey[0].mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(prediction[~is_grey], input_[~is_grey])
    np.testing.assert_allclose(alone["prediction"][0].int(), prediction[0].astype(int), atol=1)
    with torch.no_grad():
        images = (pixels / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        mask = torch.from_numpy(is_grey).view(3, 4, 16, 4, 16).float().mean(dim=(2, 4)) > 0.9
        raw = model.reconstruct(images, mask).prediction
    levels = raw * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    expected = (levels.clamp(0, 1) * 255).permute(0, 2, 3, 1)
    covered = expand_mask(mask, (64, 64)).numpy()
    difference = np.abs(expected.numpy() - prediction)[covered]
    assert difference.max() < 1.5
    shown = question.answer({name: value[1] for name, value in together.items()})["pictures"]
    np.testing.assert_array_equal(pixels_of(shown["prediction"]), prediction[1])


def test_masked_model_of__is_none_of_what_has_no_head(tmp_path: Path) -> None:
    pretrained(tmp_path)
    backbone = load_backbone(tmp_path)
    (tmp_path / "backbone/simmim.safetensors").unlink()
    assert masked_model_of(tmp_path, backbone) is None
    (tmp_path / "config.yaml").write_text("task: {}\n")
    assert masked_model_of(tmp_path, backbone) is None
    (tmp_path / "config.yaml").unlink()
    assert masked_model_of(tmp_path, backbone) is None


@pytest.mark.parametrize(
    "content",
    [
        "a: [",
        "- x",
        "\x00",
        "objective: 3",
        "objective: {}",
        "objective: ${nope}",
        "objective: {_target_: nope.x}",
        "objective: {_target_: ssl_swin.SimMIM, _partial_: true, nope: 7}",
    ],
)
def test_masked_model_of__a_damaged_configuration(tmp_path: Path, content: str) -> None:
    pretrained(tmp_path)
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"does not tell what was trained .*: give .*backbone"):
        masked_model_of(tmp_path, load_backbone(tmp_path))


@pytest.mark.slow
def test_neighbours__of_images_that_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first image must still be there at the start, and others may go later."""
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "run")
    draw_photos(tmp_path / "photos", 3)
    assert main(["embed", "run", "photos", "v.npy", *OPTIONS]) == 0
    options = ("--vectors", "v.npy", "--images", "photos")
    content = Path("photos/cat/0.png").read_bytes()
    with served_process(tmp_path, "run", *options) as process:
        Path("photos/dog/1.png").unlink()
        Path("photos/cat/2.png").write_bytes(b"damaged")
        answer = httpx.post(f"{process.url}/neighbours", content=content)
    found = {each["name"]: each["picture"] for each in answer.json()["results"][0]["neighbours"]}
    assert found["dog/1.png"] is None and found["cat/2.png"] is None
    assert found["cat/0.png"].startswith("data:image/png")


@pytest.mark.slow
def test_neighbours__whose_first_image_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "run")
    draw_photos(tmp_path / "photos", 3)
    assert main(["embed", "run", "photos", "v.npy", *OPTIONS]) == 0
    Path("photos/cat/0.png").write_bytes(b"\x89PNG\r\n\x1a\n junk")
    words = ["--vectors", "v.npy", "--images", "photos"]
    assert main(["serve", "run", "--port", "0", "--device", "cpu", *words]) == 2
    assert "cat/0.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--vectors", "v.npy"], "--vectors and --images go together"),
        (["--vectors", "no.npy", "--images", "photos"], "no.npy"),
        (["--vectors", "v.npy", "--images", "nowhere"], "nowhere"),
        (["--vectors", "v.npy", "--images", "others"], "image 1 of the vectors is cat/0.png"),
        (["--vectors", "v.npy", "--images", "photos", "--pooling", "max"], "this network does not"),
    ],
)
@pytest.mark.slow
def test_neighbours__refuse_what_does_not_belong_together(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "run")
    draw_photos(tmp_path / "photos")
    draw_photos(tmp_path / "others", 1)
    Path("others/cat/0.png").rename("others/cat/7.png")
    assert main(["embed", "run", "photos", "v.npy", *OPTIONS]) == 0
    capsys.readouterr()
    assert main(["serve", "run", "--port", "0", "--device", "cpu", *words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err and len(printed.err.splitlines()) == 1 and printed.out == ""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A pretraining with its head, and vectors of nine photos."""
    folder = tmp_path_factory.mktemp("page")
    pretrained(folder / "run")
    draw_photos(folder / "photos")
    words = ["embed", str(folder / "run"), str(folder / "photos"), str(folder / "v.npy")]
    assert main([*words, *OPTIONS]) == 0
    (folder / ATTACK).write_bytes((folder / "photos/dog/3.png").read_bytes())
    options = ("--vectors", "v.npy", "--images", "photos", "--neighbours", "4")
    with served_process(folder, "run", *options) as process:
        yield process
        assert process.stop() == 143
        assert len(process.said().splitlines()) == 2


def folder_of(server: Process) -> Path:
    return server._log.parent


@pytest.mark.slow
def test_neighbours__the_image_itself_comes_first(server: Process) -> None:
    content = (folder_of(server) / "photos/dog/3.png").read_bytes()
    answer = httpx.post(f"{server.url}/neighbours", content=content)
    (found,) = answer.json()["results"]
    near = found["neighbours"]
    assert [near[0][key] for key in ("name", "label", "cosine")] == ["dog/3.png", "dog", 1.0]
    cosines = [each["cosine"] for each in near]
    assert len(near) == 4 and cosines == sorted(cosines, reverse=True)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(pixels_of(near[0]["picture"]), expected)
    vectors = np.load(folder_of(server) / "v.npy")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [line.split(",")[0] for line in
             (folder_of(server) / "v.names.csv").read_text().splitlines()[1:]]  # fmt: skip
    order = np.argsort(-(unit @ unit[names.index("dog/3.png")]), kind="stable")[:4]
    assert [each["name"] for each in near] == [names[row] for row in order]


@pytest.mark.slow
def test_pictures__are_not_shown_under_another_name(server: Process) -> None:
    """A page of another site may lead its own name to this machine."""
    content = (folder_of(server) / "photos/dog/3.png").read_bytes()
    headers = {"host": "evil.example:80"}
    answer = httpx.post(f"{server.url}/neighbours", content=content, headers=headers)
    assert answer.status_code == 421
    assert "was asked as evil.example: ask as 127.0.0.1, ::1, localhost" in answer.json()["error"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page of a server; at the end it has said nothing and asked nobody else."""
    pages = Pages(browser, ("http://127.0.0.1:", "data:", "blob:"))

    def open_page(url: str, width_px: int = 1000, scheme: str = "light") -> Any:
        return pages.open(url, width_px, 900, scheme)

    yield open_page
    pages.close()
    assert [line for line in pages.said if "status of 422" not in line] == []


@pytest.mark.slow
@pytest.mark.parametrize(("width_px", "scheme"), [(1000, "light"), (360, "dark")])
def test_page__shows_what_the_network_makes_of_an_image(
    opened: Any, server: Process, width_px: int, scheme: str
) -> None:
    page = opened(server.url, width_px, scheme)
    page.get_by_text("Choose an image to see").wait_for()
    assert page.locator("h1").inner_text() == "Swin Transformer V1 pretrained by SimMIM"
    page.locator("#file").set_input_files(folder_of(server) / ATTACK)
    page.locator("#neighbours figure").first.wait_for()
    page.locator("#reconstruct figure").first.wait_for()
    page.wait_for_function(
        "name => document.querySelector('#told').textContent === name", arg=ATTACK
    )
    assert not page.locator("#predict").is_visible()
    captions = page.locator("#reconstruct figcaption").all_inner_texts()
    assert captions == ["input", "masked", "prediction"]
    captions = page.locator("#neighbours figcaption").all_inner_texts()
    assert len(captions) == 4 and captions[0].split() == ["1.000", "dog", "dog/3.png"]
    sizes = page.evaluate("[...document.images].map((it) => it.naturalWidth)")
    assert len(sizes) == 8 and min(sizes) > 0
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.slow
def test_page__drop_and_error(opened: Any, server: Process) -> None:
    page = opened(server.url)
    page.get_by_text("Choose an image to see").wait_for()
    drop = """(text) => {
        const data = new DataTransfer();
        data.items.add(new File([text], "note.txt"));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
    }"""
    page.evaluate(drop, "no image")
    page.locator("#neighbours .error").first.wait_for()
    assert page.locator("#neighbours p.error").inner_text() == "the image 1 is of no known kind"
    page.locator("#file").set_input_files(folder_of(server) / "photos/cat/2.png")
    page.locator("#neighbours figure").first.wait_for()
    assert page.locator("#neighbours .error").count() == 0


@pytest.mark.slow
def test_page__of_a_classifier(opened: Any, server: Process, tmp_path: Path) -> None:
    write_run(tmp_path)
    photo = folder_of(server) / "photos/cat/2.png"
    with served_process(tmp_path, "run") as classifier:
        page = opened(classifier.url)
        page.get_by_text("Choose an image to see").wait_for()
        page.locator("#file").set_input_files(photo)
        page.locator("#predict dd").first.wait_for()
        (found,) = httpx.post(f"{classifier.url}/predict", content=photo.read_bytes()).json()[
            "results"
        ]
        names = page.locator("#predict dt").all_inner_texts()
        assert names == [each["class"] for each in found["predictions"]]
        shares = page.locator("#predict dd").all_inner_texts()
        assert shares == [f"{100 * each['score']:.1f} %" for each in found["predictions"]]
        assert not page.locator("#reconstruct").is_visible()
