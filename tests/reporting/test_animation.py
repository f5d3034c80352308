from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from ssl_swin.reporting import animation
from ssl_swin.reporting.animation import LABEL_PX, MAX_BYTES, spread_over, write_animation


@pytest.fixture
def pictures(tmp_path: Path):
    def pictures(steps, size=(40, 30)) -> dict[int, Path]:
        """Pictures that are grey at the beginning and white at the end."""
        found = {}
        for step in steps:
            found[step] = tmp_path / f"{step}.png"
            Image.new("RGB", size, (255 * step // max(steps),) * 3).save(found[step])
        return found

    return pictures


def read(path: Path) -> tuple[list[np.ndarray], list[int]]:
    with Image.open(path) as film:
        assert film.format == "WEBP" and film.info["loop"] == 0
        frames, durations = [], []
        for frame in ImageSequence.Iterator(film):
            frame.load()  # the duration is that of the frame before otherwise
            frames.append(np.asarray(frame.convert("RGB")).astype(int))
            durations.append(frame.info["duration"])
        return frames, durations


def test_spread__has_the_ends_and_even_gaps():
    assert spread_over([3, 5, 8], 4) == [3, 5, 8]
    assert spread_over([3, 5, 8], 1) == [8]
    chosen = spread_over(range(1001), 40)
    assert len(chosen) == 40 and chosen[0] == 0 and chosen[-1] == 1000
    assert set(np.diff(chosen)) == {25, 26}


def test_animation__frames_in_order_with_labels(pictures, tmp_path):
    path = tmp_path / "film.webp"
    write_animation(path, pictures([255, 0, 100]))
    frames, durations = read(path)
    assert durations == [200, 200, 2000]
    assert [frame.shape for frame in frames] == 3 * [(30 + LABEL_PX, 40, 3)]
    shades = [frame[LABEL_PX + 2 :].mean() for frame in frames]
    np.testing.assert_allclose(shades, [0, 100, 255], atol=3)
    labels = [frame[: LABEL_PX - 4] for frame in frames]
    assert all(label.min() < 128 for label in labels)
    assert np.abs(labels[0] - labels[1]).max() > 100


def test_animation__at_most_40_frames_of_640_px(pictures, tmp_path):
    path = tmp_path / "film.webp"
    write_animation(path, pictures(range(0, 246, 3), size=(1280, 400)))
    frames, _ = read(path)
    assert len(frames) == 40
    assert frames[0].shape == (200 + LABEL_PX, 640, 3)
    assert frames[0][LABEL_PX + 2 :].max() < 4 and frames[-1][LABEL_PX + 2 :].min() > 250


def test_animation__leaves_out_what_cannot_be_read(pictures, tmp_path):
    files = pictures([0, 100, 200, 255])
    files[100].write_bytes(files[100].read_bytes()[:40])
    files[200].write_bytes(b"")
    Image.new("RGB", (90, 10), "black").save(files[0])  # of another number of images
    path = tmp_path / "film.webp"
    write_animation(path, files)
    frames, _ = read(path)
    assert [frame.shape for frame in frames] == 2 * [(30 + LABEL_PX, 40, 3)]
    write_animation(tmp_path / "none.webp", {0: files[200]})
    assert not (tmp_path / "none.webp").exists()


def test_animation__is_bounded(tmp_path, monkeypatch):
    assert MAX_BYTES <= 8_000_000
    noise = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    files = {step: tmp_path / f"{step}.png" for step in range(3)}
    for step, path in files.items():
        Image.fromarray(noise[step]).save(path)
    sizes = {}
    for limit in (10**6, 20_000, 3_000):
        monkeypatch.setattr(animation, "MAX_BYTES", limit)
        path = tmp_path / f"{limit}.webp"
        write_animation(path, files)
        assert path.stat().st_size <= limit
        sizes[limit] = read(path)[0][0].shape[1]
    assert sizes[10**6] == 128 and sizes[3_000] < 128
