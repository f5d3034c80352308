"""Feature distillation: what is computed, what a teacher may be, and that it stays outside."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_swin.data.batch import LabeledBatch
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.objectives.distillation import FeatureDistillation, whitened
from ssl_swin.objectives.teacher import Teacher, digest_of
from ssl_swin.optim.param_groups import weight_decay_groups
from ssl_swin.pixels import normalize
from ssl_swin.weights.backbone import save_backbone
from ssl_swin.weights.teachers import TimmMap, distillation

GOLDEN = (
    Path(os.environ.get("SSL_SWIN_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    / "objectives"
)
HALF = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


class Cells(nn.Module):
    """A teacher whose map is the image, averaged over cells of a side."""

    def __init__(self, side_px: int, scale: float = 1.0) -> None:
        super().__init__()
        self.side_px = side_px
        self.scale = nn.Parameter(torch.tensor(scale))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(F.avg_pool2d(images, self.side_px) * self.scale)


def small_swin(**settings):
    shape = {"img_size_px": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1)}
    return swin(**{"version": 1, "num_heads": (1, 2), **shape, **settings})


def cells_teacher(side_px: int = 8, scale: float = 1.0, size_px=(32, 32)) -> Teacher:
    return Teacher(Cells(side_px, scale), name="cells", size_px=size_px, **HALF)


def batch(*, seed: int = 0, size_px: int = 32) -> LabeledBatch:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 3, size_px, size_px), np.uint8)
    return LabeledBatch(torch.as_tensor(pixels), torch.zeros(4), list("abcd"))


def by_half(pixels: Tensor) -> Tensor:
    return normalize(pixels, **HALF)


def test_loss__is_smooth_l1_of_whitened_cells_by_hand() -> None:
    objective = FeatureDistillation(small_swin(), cells_teacher(), beta=0.5).eval()
    images = by_half(batch().pixels)
    cells = F.avg_pool2d(images, 8).movedim(1, -1) / (1 + 1e-5) ** 0.5  # of the batch norm
    mean, variance = cells.mean(-1, keepdim=True), cells.var(-1, correction=0, keepdim=True)
    target = (cells - mean) / (variance + 1e-5).sqrt()
    prediction = objective.projection(objective.encoder(images)).movedim(1, -1)
    off = (prediction - target).abs()
    expected = torch.where(off < 0.5, off.square(), off - 0.25).mean()
    torch.testing.assert_close(objective(batch(), by_half).loss, expected)


def test_target__of_a_finer_map_is_averaged_before_it_is_whitened() -> None:
    fine = FeatureDistillation(small_swin(), cells_teacher(side_px=2))
    assert fine.pooled == 4
    coarse = FeatureDistillation(small_swin(), cells_teacher(side_px=8))
    torch.testing.assert_close(fine.target(batch().pixels), coarse.target(batch().pixels))
    rounded = F.avg_pool2d(whitened(fine.teacher(batch().pixels)), 4)
    assert not torch.allclose(fine.target(batch().pixels), rounded, atol=0.01)


def test_target__of_a_constant_map_is_zero_and_the_loss_finite() -> None:
    objective = FeatureDistillation(small_swin(), cells_teacher(scale=0.0))
    assert objective.target(batch().pixels).abs().max() == 0
    metrics = objective.new_metrics()
    objective.eval().evaluate(metrics, batch(), by_half)
    assert metrics["loss"].compute().isfinite()


def test_teacher__learns_nothing_stays_in_eval_and_outside() -> None:
    teacher = cells_teacher()
    objective = FeatureDistillation(small_swin(), teacher).train()
    before = copy.deepcopy(teacher._network.state_dict())
    loss = objective(batch(), by_half).loss
    loss.backward()
    network = teacher._network
    assert not network.training and all(p.grad is None for p in network.parameters())
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert {name.partition(".")[0] for name in objective.state_dict()} == {"encoder", "projection"}
    groups = weight_decay_groups(objective, lr=0.1, weight_decay=0.1, policy="intended")
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for p in objective.parameters()}
    assert trained.isdisjoint(id(p) for p in network.parameters())
    assert all(p.grad is not None for p in objective.parameters())
    assert copy.deepcopy(objective).teacher is teacher
    assert objective.outside() == {"teacher": digest_of(before)} and not objective.extra_weights()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | {"a": torch.tensor([1.0, 2.0, 4.0])},
        lambda state: {"b": state["a"]},
        lambda state: state | {"a": state["a"].view(3, 1)},
        lambda state: state | {"a": state["a"].view(torch.int32)},
    ],
)
def test_digest__tells_values_names_shapes_and_types(change) -> None:
    state = {"a": torch.tensor([1.0, 2.0, 3.0])}
    assert digest_of(state) == digest_of({"a": state["a"].clone()}) != digest_of(change(state))


def test_teacher__gets_images_of_its_own_size_and_normalisation() -> None:
    network = Cells(16)
    teacher = Teacher(network, name="x", mean=(0.1,) * 3, std=(2.0,) * 3, size_px=(64, 64))
    pixels = batch().pixels
    images = F.interpolate(
        normalize(pixels, (0.1,) * 3, (2.0,) * 3), (64, 64), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(teacher(pixels), network(images))


def test_student__of_a_copy_of_itself_comes_near() -> None:
    torch.manual_seed(0)
    student = small_swin()
    teacher = Teacher(copy.deepcopy(student), name="own", size_px=(32, 32), **HALF)
    objective = FeatureDistillation(student, teacher)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    for _ in range(200):
        loss = objective(batch(), by_half).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (
            {"side_px": 8, "size_px": (40, 40)},
            {},
            r"makes 5x5 cells of 40x40 px, and the student 4x4: .*teacher_size_px=32, or choose",
        ),
        ({"side_px": 16}, {}, r"makes 2x2 cells .*, and the student 4x4: .*teacher_size_px=64,"),
        ({"side_px": 4}, {"pool_to_student": False}, r"8x8 .* set objective.pool_to_student=true"),
    ],
)
def test_maps__that_do_not_fit(teacher, options, message) -> None:
    with pytest.raises(UserError, match=message):
        FeatureDistillation(small_swin(), cells_teacher(**teacher), **options)


def test_teacher__of_other_channels() -> None:
    with pytest.raises(UserError, match=r"takes images of 3 channels, and the student takes 5"):
        FeatureDistillation(small_swin(in_chans=5), cells_teacher())


TIMM = [
    ("convnext_atto", {}, (64, 64), (2, 2)),
    ("resnet18", {}, (64, 64), (2, 2)),
    ("vit_tiny_patch16_224", {"img_size": 64}, (64, 64), (4, 4)),
    ("beit_base_patch16_224", {"img_size": 64, "depth": 1, "embed_dim": 24, "num_heads": 2},
     (64, 64), (4, 4)),
    ("swinv2_cr_tiny_224", {"img_size": 64, "window_size": 2, "embed_dim": 12,
     "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}, (64, 64), (2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "size_px", "grid"), TIMM)
def test_timm__teacher_is_the_last_map_after_its_norm(name, options, size_px, grid) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **options)
    teacher = Teacher(TimmMap(model), name=name, size_px=size_px, **HALF)
    assert teacher.grid == grid and teacher.width == model.num_features
    pixels = batch(size_px=64).pixels
    features = model.forward_features(by_half(pixels))
    if features.ndim == 3:  # tokens, the first of which may be of classes
        features = features[:, -grid[0] * grid[1] :].unflatten(1, grid)
    if features.shape[-1] == teacher.width:
        features = features.movedim(-1, 1)
    torch.testing.assert_close(teacher(pixels), features.detach())


def test_distillation__takes_a_folder_of_any_timm_model(tmp_path: Path) -> None:
    model = timm.create_model("convnext_atto", num_classes=0)
    timm.models._hub.save_for_hf(model, tmp_path / "convnext", safe_serialization=True)
    student = small_swin(img_size_px=64, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=2)
    objective = distillation(student, teacher=str(tmp_path / "convnext"))
    assert objective.outside() == {"teacher": digest_of(TimmMap(model).state_dict())}
    assert "convnext (width 320, 2x2 cells)" in objective.describe()
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    pixels = batch(size_px=64).pixels
    expected = whitened(model.eval().forward_features(normalize(pixels, **imagenet)).detach())
    torch.testing.assert_close(objective.target(pixels), expected)


def test_distillation__resizes_a_backbone_of_ours_to_the_student(tmp_path: Path) -> None:
    save_backbone(tmp_path, small_swin(img_size_px=64), **HALF, card="")
    student = small_swin(embed_dim=16)
    assert distillation(student, teacher=str(tmp_path)).teacher.grid == (4, 4)
    doubled = distillation(student, teacher=str(tmp_path), teacher_size_px=64)
    assert (doubled.teacher.grid, doubled.pooled) == ((8, 8), 2)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere/at/all", r"^objective\.teacher=nowhere/at/all: no such folder.*a teacher can be"),
        ("timm:swin_tiny_patch4_window7_224.no_such", r"timm has no weights"),
        ("timm:no_such_model", r"timm has no weights no_such_model"),
    ],
)
def test_distillation__of_no_teacher(reference, message) -> None:
    with pytest.raises(UserError, match=message):
        distillation(small_swin(), teacher=reference)


@pytest.mark.parametrize("config", ["{}", '{"architecture": 3}', '{"pretrained_cfg": []}'])
def test_distillation__of_a_download_that_describes_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    monkeypatch.setattr("ssl_swin.weights.teachers.download_backbone", lambda _: tmp_path)
    with pytest.raises(UserError, match=r"^objective\.teacher=timm:resnet18 cannot be a teacher"):
        distillation(small_swin(), teacher="timm:resnet18")


def test_golden__equals_the_original() -> None:
    path = GOLDEN / "fd_swin.npz"
    if not path.is_file():
        pytest.skip(f"needs {path} (SSL_SWIN_GOLDEN)")
    arrays = dict(np.load(path))
    student = swin(version=2, img_size_px=64, window_size=4, embed_dim=8, depths=(1, 2, 2, 1),
                   num_heads=(1, 2, 2, 4))  # fmt: skip
    network = swin(version=1, img_size_px=64, window_size=4, embed_dim=12, depths=(1, 2, 2, 1),
                   num_heads=(1, 2, 2, 4))  # fmt: skip
    load_original(student, arrays, "param/encoder.")
    load_original(network, arrays, "param/feature_model.")
    images = torch.as_tensor(arrays["images"]).float()
    teacher = Teacher(network, name="golden", mean=(0,) * 3, std=(1,) * 3, size_px=(64, 64))
    objective = FeatureDistillation(student, teacher)
    for name, values in zip(("weight", "bias"), objective.projection.parameters(), strict=True):
        given = torch.as_tensor(arrays[f"param/decoder.0.{name}"]).float()
        values.data.copy_(given.view_as(values))
    assert name == "bias"
    given = LabeledBatch(images, torch.zeros(2), ["a", "b"])
    loss = objective(given, lambda pixels: pixels).loss
    assert loss.item() == pytest.approx(float(arrays["loss"]), rel=1e-5)
    whole = objective.target(images).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(whole, arrays["target_whitened"], atol=1e-4)
    loss.backward()
    seen = 0
    for name, parameter in student.model.named_parameters():
        expected = arrays.get(f"grad_norm/encoder.{original_name(name)}")
        if expected is not None:
            assert parameter.grad.norm().item() == pytest.approx(float(expected), rel=1e-4), name
            seen += 1
    assert seen == sum(key.startswith("grad_norm/encoder.") for key in arrays)


def original_name(name: str) -> str:
    """Mergings move to the stage before, and the bias MLP of Swin V2 has another name."""
    parts = name.replace("cpb_mlp", "rpe_mlp").split(".")
    if "downsample" in parts:
        parts[1] = str(int(parts[1]) - 1)
    return ".".join(parts)


def load_original(encoder, arrays: dict[str, np.ndarray], prefix: str) -> None:
    for name, parameter in encoder.model.named_parameters():
        given = torch.as_tensor(arrays[prefix + original_name(name)]).float()
        parameter.data.copy_(given.view_as(parameter))
