"""The crop of evaluation and the choice of few labels, which jobs have in common."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.jobs.embedding import embed
from ssl_swin.jobs.labels import train_on_few_labels
from ssl_swin.jobs.loop import training_data
from ssl_swin.jobs.settings import FinetuneSettings, LinearProbeSettings, PretrainSettings
from ssl_swin.launch.check import check_settings
from ssl_swin.launch.config_files import compose_job
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.weights.backbone import Backbone

SETTINGS = {
    "pretrain": PretrainSettings,
    "finetune": FinetuneSettings,
    "linear_probe": LinearProbeSettings,
}


def composed(job: str, *overrides: str) -> DictConfig:
    register_resolvers()
    return compose_job(job, [*(() if job == "pretrain" else ("backbone=x",)), *overrides])


def plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


@pytest.mark.parametrize("job", SETTINGS)
def test_eval_crop_ratio__is_swins_by_default_and_may_be_one(job: str) -> None:
    settings = plain(composed(job))
    assert settings["eval_crop_ratio"] == 224 / 256
    check_settings(settings | {"eval_crop_ratio": 1}, SETTINGS[job])
    for value in (0, 1.001, -0.5, None, "most", math.nan, [1]):
        with pytest.raises(UserError) as error:
            check_settings(settings | {"eval_crop_ratio": value}, SETTINGS[job])
        assert str(error.value).startswith("eval_crop_ratio must be a number in (0, 1], got ")


def test_training_data__evaluates_whole_small_images(
    tiny_encoder: Callable[..., SwinEncoder],
) -> None:
    """At 32 px the default takes 2 px off each edge once the image is enlarged; 1 takes none."""
    objective = SimMIM(tiny_encoder())
    data = training_data(composed("pretrain", "eval_crop_ratio=1.0"), {}, objective)
    pixels = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    for transform in (data.eval_samples, data.labelled_samples):
        view = transform.augmentation.on_pixels(pixels, np.random.default_rng(0))
        assert torch.equal(view, pixels)
    cropped = training_data(composed("pretrain"), {}, objective).eval_samples.augmentation
    assert not torch.equal(cropped.on_pixels(pixels, np.random.default_rng(0)), pixels)


def test_embed__crops_as_it_is_told(
    tmp_path: Path, tiny_encoder: Callable[..., SwinEncoder]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    backbone = Backbone(tiny_encoder(), (0.0,) * 3, (1.0,) * 3)
    whole = embed(backbone, tmp_path, crop_ratio=1.0).vectors
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = backbone.encoder.stages(images)[-1].mean(dim=(2, 3))
    torch.testing.assert_close(whole, expected)
    assert not torch.allclose(embed(backbone, tmp_path).vectors, expected)
    with pytest.raises(UserError, match=r"must be a number in \(0, 1\] or null, got 1\.5"):
        embed(backbone, tmp_path, crop_ratio=1.5)


def cifar_as_folders(root: Path, num_train: int) -> Path:
    """CIFAR-10 as class folders, in miniature: train/airplane/0001.png and so on."""
    for split, number in (("train", num_train), ("test", 2)):
        for label, name in enumerate(("airplane", "automobile", "bird")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(1, number + 1):
                pixels = np.full((32, 32, 3), 80 * label + index, np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:04d}.png")
    return root


def splits_of(root: Path) -> dict[str, Any]:
    return open_splits(
        root, "folder", how_to_make="", order=OrderConstants(64, 1024, 1), val_ratio=0.2
    )


def test_cifar_as_class_folders__has_classes_and_a_test_split(tmp_path: Path) -> None:
    splits = splits_of(cifar_as_folders(tmp_path / "cifar", 5))
    assert {split: reader.num_samples for split, reader in splits.items()} == {
        "train": 12,
        "test": 6,
        "val": 3,
    }
    assert splits["test"].classes == ("airplane", "automobile", "bird")
    assert splits["test"].dataset.labels().tolist() == [0, 0, 1, 1, 2, 2]


def test_few_labels__both_jobs_choose_the_same_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = cifar_as_folders(tmp_path / "cifar", 5)
    chosen = []
    for job in ("finetune", "linear_probe"):
        splits = splits_of(root)
        train_on_few_labels(composed(job, "labels.per_class=2", "labels.seed=7"), splits)
        dataset = splits["train"].dataset
        chosen.append([dataset[index].name for index in range(len(dataset))])
        assert dataset.labels().tolist() == [0, 0, 1, 1, 2, 2]
        assert (splits["val"].num_samples, splits["test"].num_samples) == (3, 6)
    assert capsys.readouterr().out == "labels: 6 of 12 training images\n" * 2
    assert chosen[0] == chosen[1]


def test_few_labels__of_a_probe_are_checked_and_refused() -> None:
    for override, message in (
        ("labels.per_class=0", "per_class must be"),
        ("labels.ratio=2", "ratio must be"),
    ):
        with pytest.raises(UserError, match=message):
            train_on_few_labels(
                composed("linear_probe", override),
                {"train": SimpleNamespace()},  # type: ignore[dict-item]
            )
    with pytest.raises(UserError, match=r"labels\.of, did you mean|there is no setting labels\.of"):
        check_settings(plain(composed("linear_probe", "+labels.of=1")), LinearProbeSettings)
