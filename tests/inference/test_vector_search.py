"""Nearest images and the map: by hand numbers, and the commands from a file or a backbone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from worlds import draw, hand_on

from ssl_swin.cli import main
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.inference.search import nearest, principal_map
from ssl_swin.reporting.drawing import class_colours
from ssl_swin.reporting.map_figure import MARGIN_PX, SIDE_PX, draw_map
from ssl_swin.reporting.tiles import GAP_PX, TEXT_PX, TILE_PX

OPTIONS = ("--workers", "0", "--device", "cpu")
SIDE = TILE_PX + GAP_PX


def test_nearest__by_hand() -> None:
    """Angles of 0, 30, 60, 90 and 180 degrees, of any length."""
    angles = np.deg2rad([0, 60, 180, 30, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[3], [1], [2], [0.1], [7]]
    query, own = np.array([[5.0, 0.0]], np.float32), [None]
    (found,) = nearest(vectors.astype(np.float32), query, 4, own)
    assert found.rows == [0, 3, 1, 4]
    np.testing.assert_allclose(found.cosines, [1, 3**0.5 / 2, 0.5, 0], atol=1e-6)
    (others,) = nearest(vectors.astype(np.float32), vectors[[3]].astype(np.float32), 99, [3])
    assert others.rows == [0, 1, 4, 2]
    (equal,) = nearest(np.ones((4, 2), np.float32), np.ones((1, 2), np.float32), 4, [None])
    assert equal.rows == [0, 1, 2, 3]
    with pytest.raises(UserError, match="have 2 numbers, and those of the query 3"):
        nearest(np.ones((4, 2), np.float32), np.ones((1, 3), np.float32), 4, [None])


def test_principal_map__equals_the_singular_vectors() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(50, 6)) * [5, 3, 1, 1, 0.5, 0.1] + 7).astype(np.float32)
    centred = vectors - vectors.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    found = principal_map(vectors)
    expected = centred @ directions[:2].T
    for axis in (0, 1):
        sign = np.sign(directions[axis][np.abs(directions[axis]).argmax()])
        np.testing.assert_allclose(found.points[:, axis], sign * expected[:, axis], atol=1e-3)
    np.testing.assert_allclose(found.shares, values[:2] ** 2 / (values**2).sum(), rtol=1e-4)
    with pytest.raises(UserError, match="takes three images or more"):
        principal_map(vectors[:2])


def test_draw_map__points_lie_where_they_are() -> None:
    points = np.array([[-2, -1], [2, -1], [-2, 1], [2, 1]], np.float32)
    figure = draw_map(points, ["b", "a", "", "b"], ("x", "y"))
    pixels = np.asarray(figure)
    left, right = MARGIN_PX, SIDE_PX - MARGIN_PX
    middle, reach = figure.height / 2, (right - left) / 4
    first, second = class_colours(2)
    for x, y, colour in (
        (left, middle + reach, second),
        (right, middle + reach, first),
        (left, middle - reach, (150, 156, 164)),
        (right, middle - reach, second),
    ):
        np.testing.assert_allclose(pixels[round(y), round(x)], colour, atol=3)
    assert (pixels[round(middle), SIDE_PX // 2] == 255).all()


@pytest.fixture
def world(
    tmp_path: Path, tiny_encoder: Callable[..., SwinEncoder], monkeypatch: pytest.MonkeyPatch
) -> SwinEncoder:
    """A file of vectors of ten images, one of them broken, and copies of two."""
    monkeypatch.chdir(tmp_path)
    draw(Path("photos"), 10)
    Path("photos/cat/001.png").write_bytes(b"no image")
    for copy, of in (("photos/dog/twin.png", "cat/003.png"), ("new.png", "dog/007.png")):
        Path(copy).write_bytes((Path("photos") / of).read_bytes())
    encoder = hand_on(Path("backbone"), tiny_encoder)
    assert main(["embed", "backbone", "photos", "v.npy", *OPTIONS]) == 0
    return encoder


def search(*words: str) -> int:
    return main(["neighbours", *words, "--out", "near.png", *OPTIONS])


def test_neighbours__finds_the_twin_and_draws_it(
    world: SwinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("v.npy", "photos", "--query", "cat/003.png", "photos/dog/007.png") == 0
    first, second, last = capsys.readouterr().out.splitlines()[-3:]
    assert first.startswith("cat/003.png: dog/twin.png 1.000, ")
    assert second.startswith("dog/007.png: ")
    assert "dog/007.png" not in second.removeprefix("dog/007.png")
    assert last == "wrote near.png"
    picture = np.asarray(Image.open("near.png"))
    assert picture.shape[:2] == (2 * (SIDE + TEXT_PX) + GAP_PX, 8 * SIDE + GAP_PX)
    tile = np.s_[GAP_PX + 40 : GAP_PX + 100]
    query, twin = picture[tile, 52:112], picture[tile, SIDE + 52 : SIDE + 112]
    assert query.std() > 20, "an empty tile would equal another one"
    np.testing.assert_array_equal(query, twin)


def test_neighbours__of_another_image(
    world: SwinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("v.npy", "photos", "--query", "new.png", "--top", "2") == 2
    assert "give the backbone that made the vectors" in capsys.readouterr().err
    wanted = ("photos", "--query", "new.png", "--top", "2")
    assert search("v.npy", *wanted, "--backbone", "backbone") == 0
    of_file = capsys.readouterr().out
    assert "new.png: dog/007.png 1.000, " in of_file
    assert search("v.npy", *wanted, "--backbone", "backbone", "--stage", "2") == 2
    assert "backbone does not make the vectors of v.npy" in capsys.readouterr().err
    assert search("backbone", *wanted) == 0
    assert capsys.readouterr().out == of_file


def test_neighbours__without_what_all_images_share(
    world: SwinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.load("v.npy")
    centred = vectors - vectors.mean(axis=0)
    first, second = centred[0], centred[1]
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert search("v.npy", "photos", "--query", "cat/000.png", "--top", "99", "--centre") == 0
    assert f"cat/002.png {cosine:.3f}" in capsys.readouterr().out  # cat/001.png has no row


def test_neighbours__refuses_other_images(
    world: SwinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("v.npy", "photos", "--query", "cat/03.png") == 2
    assert "neither one of the images nor a file, did you mean cat/003.png?" in (
        capsys.readouterr().err
    )
    draw(Path("others"), 30, seed=1)
    assert search("v.npy", "others", "--query", "cat/003.png", "dog/twin.png") == 2
    assert "is dog/twin.png, and there is no such image" in capsys.readouterr().err


def test_map__of_a_file(world: SwinEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "v.npy", "--out", "map.png"]) == 0
    expected = principal_map(np.load("v.npy"))
    assert f"map.png: 10 images; {100 * expected.shares[0]:.1f} % and" in capsys.readouterr().out
    colours = {tuple(colour) for colour in np.asarray(Image.open("map.png")).reshape(-1, 3)}
    assert {*class_colours(2)} <= colours
