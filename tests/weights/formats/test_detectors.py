"""Published Mask R-CNN and Cascade in and out: names by hand, sums by hand, and round trips."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_swin.cli import main
from ssl_swin.errors import UserError
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detector import Detector
from ssl_swin.weights.backbone import save_backbone
from ssl_swin.weights.detector import LoadedDetector, load_detector, save_detector
from ssl_swin.weights.formats.dense_names import OF_OPENMMLAB, OF_SWIN
from ssl_swin.weights.formats.detectors import detector_as, export_detector, import_detector

MOMENTS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLASSES = ("ant", "bee", "cat")
LOOK = {"short_px": None, "least_score": 0.0, "most_objects": 10}
KINDS = [(False, True), (False, False), (True, True), (True, False)]


@pytest.fixture
def build(tiny_encoder: Any) -> Any:
    def made(cascade: bool, with_masks: bool = True) -> LoadedDetector:
        torch.manual_seed(0)
        head: dict[str, Any] = {
            **{"cascade": cascade, "with_masks": with_masks, "channels": 8, "head_channels": 16},
            **{"anchor_scale": 8.0, "anchor_ratios": [0.5, 1.0, 2.0]},
            **{"anchors_inside": cascade, "num_proposals": 2000 if cascade else 1000},
            "proposal_loss": "smooth_l1" if cascade else "l1",
            "box_loss": "giou" if cascade else "l1",
        }
        model = Detector(tiny_encoder(img_size_px=128), num_classes=3, **head).eval()
        for tensor in model.rcnn.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
        return LoadedDetector(
            model, CLASSES, **MOMENTS, inference=DetectInference(**LOOK), head=head
        )

    return made


def their_shapes(*, cascade: bool, with_masks: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes as mmdetection's modules have them: 8 channels, 16 in heads, 3 classes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int, bias: int | None = None) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = (weight[0] if bias is None else bias,)

    for level, width in enumerate((8, 16, 32, 64)):
        layer(f"neck.lateral_convs.{level}.conv", 8, width, 1, 1)
        layer(f"neck.fpn_convs.{level}.conv", 8, 8, 3, 3)
    layer("rpn_head.rpn_conv", 8, 8, 3, 3)
    layer("rpn_head.rpn_cls", 3, 8, 1, 1)
    layer("rpn_head.rpn_reg", 12, 8, 1, 1)
    for stage in (".0", ".1", ".2") if cascade else ("",):
        box, mask = f"roi_head.bbox_head{stage}", f"roi_head.mask_head{stage}"
        if cascade:
            for number in range(4):
                shapes[f"{box}.shared_convs.{number}.conv.weight"] = (8, 8, 3, 3)
                for name in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{box}.shared_convs.{number}.bn.{name}"] = (8,)
                shapes[f"{box}.shared_convs.{number}.bn.num_batches_tracked"] = ()
            layer(f"{box}.shared_fcs.0", 16, 8 * 49)
        else:
            layer(f"{box}.shared_fcs.0", 16, 8 * 49)
            layer(f"{box}.shared_fcs.1", 16, 16)
        layer(f"{box}.fc_cls", 4, 16)
        layer(f"{box}.fc_reg", 12, 16)
        if with_masks:
            for number in range(4):
                layer(f"{mask}.convs.{number}.conv", 8, 8, 3, 3)
            layer(f"{mask}.upsample", 8, 8, 2, 2)
            layer(f"{mask}.conv_logits", 3, 8, 1, 1)
    return shapes


@pytest.mark.parametrize(("cascade", "with_masks"), KINDS)
@pytest.mark.parametrize("names", [OF_SWIN, OF_OPENMMLAB], ids=["swin", "openmmlab"])
def test_names_and_shapes__are_mmdetections(
    build: Any, cascade: bool, with_masks: bool, names: Any
) -> None:
    state, report = detector_as(build(cascade, with_masks), names)
    around = {n: tuple(t.shape) for n, t in state.items() if not n.startswith("backbone.")}
    assert around == their_shapes(cascade=cascade, with_masks=with_masks)
    first = "backbone.layers.0" if names is OF_SWIN else "backbone.stages.0"
    assert any(name.startswith(f"{first}.blocks.0.") for name in state)
    norms = {name for name in state if re.match(r"backbone\.norm\d", name)}
    assert len(norms) == 8 and "backbone.norm.weight" not in state
    assert [entry.name for entry in report.dropped] == ["norm.weight", "norm.bias"]
    accounted = {entry.became for entry in (*report.matched, *report.renamed)}
    assert accounted >= around.keys() | norms


class ByHand:
    """R-CNN's layers on their tensors, written from the definition of mmdetection's modules."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def conv(self, x: Tensor, name: str, padding: int) -> Tensor:
        return F.conv2d(
            x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], padding=padding
        )

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def neck(self, maps: list[Tensor]) -> list[Tensor]:
        levels = [self.conv(m, f"neck.lateral_convs.{i}.conv", 0) for i, m in enumerate(maps)]
        for i in (3, 2, 1):
            size = levels[i - 1].shape[-2:]
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], size, mode="nearest")
        out = [self.conv(each, f"neck.fpn_convs.{i}.conv", 1) for i, each in enumerate(levels)]
        return [*out, F.max_pool2d(out[-1], 1, stride=2)]

    def rpn(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (places * anchors,) and codes (places * anchors, 4), place by place."""
        x = F.relu(self.conv(level, "rpn_head.rpn_conv", 1))
        scores = self.conv(x, "rpn_head.rpn_cls", 0).permute(0, 2, 3, 1).reshape(-1)
        codes = self.conv(x, "rpn_head.rpn_reg", 0).permute(0, 2, 3, 1).reshape(-1, 4)
        return scores, codes

    def box(self, pooled: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Scores, the background last, and codes (boxes, classes, 4)."""
        x = pooled
        for i in range(4 if f"{name}.shared_convs.0.conv.weight" in self.state else 0):
            bn = f"{name}.shared_convs.{i}.bn"
            x = F.conv2d(x, self.state[f"{name}.shared_convs.{i}.conv.weight"], padding=1)
            moments = (self.state[f"{bn}.{part}"] for part in ("running_mean", "running_var"))
            x = F.relu(
                F.batch_norm(x, *moments, self.state[f"{bn}.weight"], self.state[f"{bn}.bias"])
            )
        x = x.flatten(1)
        i = 0
        while f"{name}.shared_fcs.{i}.weight" in self.state:
            x, i = F.relu(self.linear(x, f"{name}.shared_fcs.{i}")), i + 1
        codes = self.linear(x, f"{name}.fc_reg").view(len(x), -1, 4)
        return self.linear(x, f"{name}.fc_cls"), codes

    def mask(self, pooled: Tensor, name: str) -> Tensor:
        x = pooled
        for i in range(4):
            x = F.relu(self.conv(x, f"{name}.convs.{i}.conv", 1))
        weight, bias = (self.state[f"{name}.upsample.{part}"] for part in ("weight", "bias"))
        x = F.relu(F.conv_transpose2d(x, weight, bias, stride=2))
        return self.conv(x, f"{name}.conv_logits", 0)


@pytest.mark.parametrize("cascade", [False, True])
def test_layers__compute_what_their_tensors_say(build: Any, cascade: bool, tmp_path: Path) -> None:
    """Of a file with their names: every layer of ours against the sums that it stands for."""
    made = build(cascade)
    state, _ = detector_as(made, OF_SWIN)
    torch.save({"state_dict": state, "meta": {"CLASSES": CLASSES}}, tmp_path / "x.pth")
    loaded, report = import_detector(tmp_path / "x.pth")
    assert {entry.reason for entry in report.dropped} == {"rebuilt from the sizes, and found equal"}
    hand, rcnn = ByHand(state), loaded.model.rcnn
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        image = torch.randn(1, 3, 90, 130, generator=generator)
        maps = loaded.model.encoder.maps_any_size(image)
        normed = [
            F.layer_norm(
                each.permute(0, 2, 3, 1),
                each.shape[1:2],
                *(state[f"backbone.norm{level}.{part}"] for part in ("weight", "bias")),
            ).permute(0, 3, 1, 2)
            for level, each in enumerate(maps)
        ]
        levels = rcnn.levels(maps)
        for ours, theirs in zip(levels, hand.neck(normed), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        scores, codes = rcnn.proposals.head(levels)
        for level, score, code in zip(levels, scores, codes, strict=True):
            expected_scores, expected_codes = hand.rpn(level)
            flat = code.view(1, 3, 4, *code.shape[-2:]).permute(0, 3, 4, 1, 2).reshape(-1, 4)
            torch.testing.assert_close(score.permute(0, 2, 3, 1).reshape(-1), expected_scores)
            torch.testing.assert_close(flat, expected_codes)
        boxes, masks = (torch.randn(5, 8, side, side, generator=generator) for side in (7, 14))
        assert rcnn.heads.mask_heads is not None
        for number, (box, mask) in enumerate(
            zip(rcnn.heads.box_heads, rcnn.heads.mask_heads, strict=True)
        ):
            stage = f".{number}" if cascade else ""
            for ours, theirs in zip(
                box(boxes), hand.box(boxes, f"roi_head.bbox_head{stage}"), strict=True
            ):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
            expected = hand.mask(masks, f"roi_head.mask_head{stage}")
            torch.testing.assert_close(mask(masks), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cascade", "with_masks"), KINDS)
@pytest.mark.parametrize("to", ["swin", "openmmlab"])
def test_round_trip__gives_back_every_bit(
    build: Any, cascade: bool, with_masks: bool, to: str, tmp_path: Path
) -> None:
    made = build(cascade, with_masks)
    save_detector(tmp_path / "run/detector", made, card="")
    export_detector(tmp_path / "run", tmp_path / "out.pth", to=to)
    again, report = import_detector(tmp_path / "out.pth", format_name=to, inference=made.inference)
    assert again.head == made.head and again.classes == CLASSES
    assert report.resized == report.missing == ()
    save_detector(tmp_path / "x", again, card="")
    loaded = load_detector(tmp_path / "x")
    pixels = torch.randint(0, 256, (3, 60, 70), dtype=torch.uint8)
    for ours, theirs in zip(loaded.detect(pixels), made.detect(pixels), strict=True):
        assert (ours is None and theirs is None) or ours.equal(theirs)
    ours, theirs = (each.model.state_dict() for each in (loaded, made))
    different = {name for name in theirs if not ours[name].equal(theirs[name])}
    assert different <= {"encoder.model.norm.weight", "encoder.model.norm.bias"}


def test_import__without_counts_of_batches_and_with_others_tensors(
    build: Any, tmp_path: Path
) -> None:
    state, _ = detector_as(build(True), OF_SWIN)
    state = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    state["somebody.elses"] = torch.zeros(1)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    loaded, report = import_detector(tmp_path / "x.pth")
    assert loaded.classes == ("0", "1", "2")
    reasons = {entry.name: entry.reason for entry in report.dropped}
    assert reasons["somebody.elses"] == "not part of an R-CNN as it is known here"


@pytest.mark.parametrize(
    ("cascade", "lost", "message"),
    [
        (False, "fc_cls", "no Mask R-CNN and no Cascade of it: roi_head.bbox_head.fc_cls.weight"),
        (False, "rpn_reg", "2 missing: proposals.head.bbox_pred.weight"),
        (False, "mask_head.upsample", "2 missing: heads.mask_heads.0.1.conv5_mask.weight"),
        (True, "bbox_head.2", "it has 2 stages; a Cascade here has 3"),
        (False, "backbone.norm0", "2 missing: 0.weight"),
    ],
)
def test_import__says_what_is_missing(
    build: Any, cascade: bool, lost: str, message: str, tmp_path: Path
) -> None:
    state, _ = detector_as(build(cascade), OF_SWIN)
    kept = {name: tensor for name, tensor in state.items() if lost not in name}
    torch.save({"state_dict": kept}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=re.escape(message)):
        import_detector(tmp_path / "x.pth")


def test_import__refuses_codes_for_all_classes_together_and_other_numbers(
    build: Any, tmp_path: Path
) -> None:
    state, _ = detector_as(build(False), OF_SWIN)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="it has 3 classes, and 2 names are given"):
        import_detector(tmp_path / "x.pth", classes=["a", "b"])
    for part in ("weight", "bias"):
        state[f"roi_head.bbox_head.fc_reg.{part}"] = state[f"roi_head.bbox_head.fc_reg.{part}"][:4]
    torch.save({"state_dict": state}, tmp_path / "y.pth")
    with pytest.raises(UserError, match="its boxes have 4 codes for 3 classes"):
        import_detector(tmp_path / "y.pth")


def test_commands__import_and_export(
    build: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file, made = tmp_path / "run", str(tmp_path / "out.pth"), build(False)
    save_detector(run / "detector", made, card="")
    save_backbone(run / "backbone", made.model.encoder, **MOMENTS, card="")
    assert main(["export", str(run), file, "--to", "openmmlab"]) == 0
    assert "dropped: norm.weight and 1 more: each map" in capsys.readouterr().out
    options = ["--task", "detection", "--classes", "x,y,z"]
    assert main(["import", file, str(tmp_path / "in"), *options]) == 0
    assert f"next: ssl-swin predict {tmp_path}/in IMAGES OUT" in capsys.readouterr().out
    assert load_detector(tmp_path / "in").classes == ("x", "y", "z")
    assert main(["export", str(run), str(tmp_path / "t.safetensors"), "--to", "timm"]) == 0
    assert "note: timm has no detectors, so the backbone is taken" in capsys.readouterr().out
    assert main(["import", file, str(tmp_path / "b"), "--img-size-px", "128"]) == 0
    assert "its R-CNN is left out; `ssl-swin import --task detection`" in capsys.readouterr().out
    assert main(["import", file, str(tmp_path / "s"), "--task", "segmentation"]) == 2
    assert "it holds no head of a UPerNet" in capsys.readouterr().err
    wrong = ["--task", "detection", "--reduce-zero-label"]
    assert main(["import", file, str(tmp_path / "s"), *wrong]) == 2
    assert "--reduce-zero-label is for --task segmentation" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
