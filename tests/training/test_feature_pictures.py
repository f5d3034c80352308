"""Pictures of features while the model learns."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from ssl_swin.errors import UserError
from ssl_swin.probing.feature_maps import feature_figure
from ssl_swin.reporting.figures import draw_figure
from ssl_swin.training.callbacks.feature_pictures import FeaturePictures
from ssl_swin.training.module import TrainingModule


class Expected(Callback):
    """Draws what has to be seen before the first step."""

    def __init__(self, query: tuple[float, float]) -> None:
        self.query = query
        self.picture: Image.Image | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        batch = trainer.datamodule.held_out_batch(3)
        pl_module.eval()
        with torch.no_grad():
            images = pl_module.normalized(batch.pixels)
            maps = pl_module.model.encoder.stages(images)
        pl_module.train()
        figure = feature_figure(images, maps, self.query)
        self.picture = draw_figure(figure, pl_module.mean, pl_module.std)


def test_feature_pictures__show_the_held_out_images_at_each_step(pretrain, tmp_path):
    expected = Expected((0.9, 0.1))
    callback = FeaturePictures(
        tmp_path / "features", every_n_steps=4, num_images=3, query=[0.9, 0.1], animate=True
    )
    pretrain(expected)
    trainer = pretrain(callback)
    pictures = sorted((tmp_path / "features").iterdir())
    assert [path.name for path in pictures] == [f"step_000000{step}.png" for step in (0, 4, 6)]
    first, *_, last = (np.asarray(Image.open(path)) for path in pictures)
    assert (first == np.asarray(expected.picture)).all()
    assert first.shape == (16 + 3 * 18, (1 + 2 * 2) * 18, 3)
    assert (first[:, :18] == last[:, :18]).all()  # the images
    assert (first[:, 18:] != last[:, 18:]).any()
    assert (tmp_path / "features.webp").is_file()
    plain = pretrain(Callback()).lightning_module.state_dict()
    trained = trainer.lightning_module.state_dict()
    assert all(trained[name].equal(tensor) for name, tensor in plain.items())


def test_feature_pictures__bands_that_are_not_there(pretrain, tmp_path):
    callback = FeaturePictures(tmp_path / "f", every_n_steps=1, num_images=1, bands=[[0], [3]])
    with pytest.raises(UserError, match="one or three from 0 to 2"):
        pretrain(callback)
    assert not (tmp_path / "f").exists()


def test_feature_pictures__that_fail_cost_a_line(pretrain, tmp_path, monkeypatch, capsys):
    def fail(*args: object) -> None:
        raise RuntimeError("no such features")

    home = "ssl_swin.training.callbacks.feature_pictures.feature_figure"
    monkeypatch.setattr(home, fail)
    trainer = pretrain(FeaturePictures(tmp_path / "f", every_n_steps=4, num_images=3))
    assert trainer.global_step == 6
    said = "".join(capsys.readouterr())
    assert "a picture failed: RuntimeError: no such features" in said and 'File "' not in said
