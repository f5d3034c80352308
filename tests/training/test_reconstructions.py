from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Callback
from PIL import Image, ImageSequence

from ssl_swin.errors import UserError
from ssl_swin.reporting.animation import LABEL_PX
from ssl_swin.training.callbacks.reconstructions import Reconstructions
from ssl_swin.training.dashboards import Dashboard
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.progress import StepAt

KEYS = {"recon/grid", "features/grid"}


class ImageLogger(MetricsCsv):
    """Keeps the pictures that it is given."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, resume=False, progress=StepAt())
        self.pictures: list[tuple[int, Image.Image]] = []

    def log_image(self, key: str, images: list[Image.Image], step: int) -> None:
        assert key in KEYS
        self.pictures += [(step, image) for image in images]


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as film:
        return [
            np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(film)
        ]


@pytest.mark.parametrize(
    ("options", "every_n_steps", "steps"),
    [
        ({}, 2, [0, 2, 4, 6]),
        ({}, 4, [0, 4, 6]),  # and at the end
        ({"accumulate_grad_batches": 3}, 1, [0, 1, 2]),
        ({"num_val": 0}, 100, [0, 6]),  # of training images where none are held out
    ],
)
def test_reconstructions__pictures_and_steps(pretrain, tmp_path, options, every_n_steps, steps):
    folder = tmp_path / "reconstructions"
    logger = ImageLogger(tmp_path / "other.csv")
    callback = Reconstructions(folder, every_n_steps=every_n_steps, num_images=3)
    pretrain(callback, loggers=[logger], **options)
    names = [f"step_{step:07d}.png" for step in steps]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [step for step, _ in logger.pictures] == steps
    pictures = [Image.open(folder / name) for name in names]
    assert {picture.size for picture in pictures} == {(4 * (16 + 2), 16 + 3 * (16 + 2))}
    drawn = [np.asarray(picture) for picture in pictures]
    sent = [np.asarray(picture) for _, picture in logger.pictures]
    assert all((one == other).all() for one, other in zip(sent, drawn, strict=True))
    # The same images under the same masks; the model's idea of them changes.
    inputs, predictions = slice(0, 2 * 18), slice(2 * 18, 3 * 18)
    assert all((d[16:, inputs] == drawn[0][16:, inputs]).all() for d in drawn)
    assert all((d[16:, predictions] != drawn[0][16:, predictions]).any() for d in drawn[1:])


def test_reconstructions__draws_the_bands_that_are_asked_for(pretrain, tmp_path):
    bands = {"as they are": None, "turned": [2, 1, 0]}
    for name, chosen in bands.items():
        pretrain(
            Reconstructions(tmp_path / name, every_n_steps=9, num_images=3, bands=chosen),
            max_epochs=1,
        )
    one, other = (np.asarray(Image.open(tmp_path / name / "step_0000000.png")) for name in bands)
    inputs = np.s_[16:, :16]
    assert (one[inputs] == other[inputs][..., ::-1]).all()
    assert (one[inputs] != other[inputs]).any()


def test_reconstructions__bands_that_are_not_there(pretrain, tmp_path):
    callback = Reconstructions(tmp_path / "r", every_n_steps=1, num_images=2, bands=[0, 1, 3])
    with pytest.raises(UserError, match=r"from 0 to 2, .* got \[0, 1, 3\]"):
        pretrain(callback)
    assert not (tmp_path / "r").exists()


def test_reconstructions__do_not_change_the_training(pretrain, tmp_path):
    drawing = pretrain(Reconstructions(tmp_path / "r", every_n_steps=1, num_images=2))
    weights = drawing.lightning_module.state_dict()
    assert drawing.lightning_module.training
    plain = pretrain(Callback()).lightning_module.state_dict()
    assert all(weights[name].equal(tensor) for name, tensor in plain.items())


def test_reconstructions__a_damaged_old_picture_keeps_no_other_from_a_dashboard(tmp_path):
    class Sent(Dashboard):
        def __init__(self) -> None:
            super().__init__(ImageLogger(tmp_path / "unused.csv"), StepAt())

        def log_image(self, key: str, images: list[Image.Image], step: int) -> None:
            self.logger.log_image(key, images, step)

    for step in (0, 2, 4, 6):
        Image.new("RGB", (4, 4)).save(tmp_path / f"step_{step:07d}.png")
    damaged = tmp_path / "step_0000002.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    (tmp_path / "step_0000000.png").write_bytes(b"")
    dashboard = Sent()
    callback = Reconstructions(tmp_path, every_n_steps=2, num_images=1)
    with pytest.raises(OSError, match="cannot identify"):
        callback._send_again(dashboard, 4)
    assert [step for step, _ in dashboard.logger.pictures] == [4]


def test_reconstructions__become_a_film_of_all_starts(pretrain, tmp_path):
    folder = tmp_path / "reconstructions"
    folder.mkdir()
    earlier = Image.new("RGB", (4 * 18, 16 + 3 * 18), "red")
    for step in (1, 99):  # the latter of a start that got further and was undone
        earlier.save(folder / f"step_{step:07d}.png")
    pretrain(Reconstructions(folder, every_n_steps=4, num_images=3, animate=True))
    frames = frames_of(tmp_path / "reconstructions.webp")
    assert len(frames) == 4  # steps 0, 1, 4 and 6
    assert frames[0].shape == (16 + 3 * 18 + LABEL_PX, 4 * 18, 3)
    is_red = [frame[LABEL_PX + 20 :].mean(axis=(0, 1)) @ [1, -1, -1] > 200 for frame in frames]
    assert is_red == [False, True, False, False]


def test_reconstructions__no_film_unless_asked_for(pretrain, tmp_path):
    pretrain(Reconstructions(tmp_path / "r", every_n_steps=4, num_images=3))
    assert not (tmp_path / "r.webp").exists()


def test_reconstructions__a_film_that_fails_costs_a_line(pretrain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ssl_swin.reporting.animation.MAX_BYTES", None)
    trainer = pretrain(Reconstructions(tmp_path / "r", every_n_steps=4, num_images=3, animate=True))
    assert trainer.global_step == 6
    assert not (tmp_path / "r.webp").exists()
    said = "".join(capsys.readouterr())
    assert said.count("a picture failed: TypeError") == 1 and 'File "' not in said
