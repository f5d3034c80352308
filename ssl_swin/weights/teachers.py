"""Teachers by a reference, and the objective that learns from one."""

import json
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn

from ssl_swin.arguments import Above0, Name, SizePx, checked
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import Size
from ssl_swin.errors import UserError
from ssl_swin.objectives.distillation import FeatureDistillation
from ssl_swin.objectives.teacher import Teacher
from ssl_swin.weights.backbone import CONFIG, WEIGHTS, describes_encoder, load_backbone
from ssl_swin.weights.from_timm import is_timm_name
from ssl_swin.weights.hub import download_backbone
from ssl_swin.weights.sources import default_cache, locate_backbone


@checked
def distillation(
    encoder: Encoder,
    *,
    teacher: Name,
    beta: Above0 = 2.0,
    pool_to_student: bool = True,
    teacher_size_px: SizePx | None = None,
) -> FeatureDistillation:
    """Feature distillation from a teacher that is named.

    Args:
        encoder: The student.
        teacher: What `load_teacher` takes.
        beta: Difference at which smooth L1 goes from a square to a line, above 0.
        pool_to_student: See `FeatureDistillation`.
        teacher_size_px: Side, or (height, width), of the teacher's images; None takes the
            student's.

    Raises:
        UserError: If there is no such teacher, or student and teacher do not fit.
    """
    size = encoder.img_size_px if teacher_size_px is None else teacher_size_px
    size_px = (size, size) if isinstance(size, int) else (size[0], size[1])
    loaded = load_teacher(teacher, size_px=size_px)
    return FeatureDistillation(encoder, loaded, beta=beta, pool_to_student=pool_to_student)


def load_teacher(reference: str, *, size_px: Size) -> Teacher:
    """Load a frozen teacher.

    Args:
        reference: Folder of a run or a backbone, a checkpoint or file of weights, hf-hub:USER/NAME,
            as `locate_backbone` takes them; timm:NAME or NAME of any of timm's pretrained models;
            or a folder in timm's layout of any architecture.
        size_px: Height and width of its images.

    Raises:
        UserError: If there is none, or it cannot take images of this size.
    """
    folder = _timm_folder(reference)
    if folder is not None:
        return _of_timm(folder, reference, size_px)
    try:
        found = locate_backbone(reference, default_cache()).folder
        backbone = load_backbone(found)
        if backbone.encoder.img_size_px != size_px:
            backbone = load_backbone(found, img_size_px=size_px)
    except UserError as error:
        raise UserError(_of_teacher(reference, str(error))) from error
    return Teacher(
        backbone.encoder, name=reference, mean=backbone.mean, std=backbone.std, size_px=size_px
    )


class TimmMap(nn.Module):
    """The last map of any timm model, after its last norm and without class tokens."""

    def __init__(self, model: Any) -> None:
        """Wrap a model.

        Args:
            model: Of timm.
        """
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Turn normalised images into the map (B, C, rows, columns)."""
        maps: list[Tensor] = self.model.forward_intermediates(
            images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps[0]


def _timm_folder(reference: str) -> Path | None:
    """Return the folder of a model of timm; None if the reference is something else."""
    scheme, _, name = reference.partition(":")
    local = Path(reference).expanduser()
    if local.exists():
        return local if local.is_dir() and _is_of_timm_alone(local) else None
    if scheme != "timm" and not is_timm_name(reference):
        return None
    name = name if scheme == "timm" else reference
    try:
        source: Any = get_pretrained_cfg(name, allow_unregistered=False)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"objective.teacher={reference}: timm has no weights {name}") from error
    if source is None or not source.hf_hub_id:
        tagged = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}*")[:8])
        raise UserError(
            f"objective.teacher={reference}: timm has no weights {name}; it has: {tagged or 'none'}"
        )
    return download_backbone(str(source.hf_hub_id))


def _is_of_timm_alone(folder: Path) -> bool:
    """Return whether a folder holds a model of timm in a form that is no backbone of ours."""
    if not all((folder / name).is_file() for name in (CONFIG, WEIGHTS)):
        return False
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (ValueError, RecursionError):
        return False
    architecture = str(config.get("architecture")) if isinstance(config, dict) else ""
    return is_model(architecture) and not describes_encoder(config)


def _of_timm(folder: Path, reference: str, size_px: Size) -> Teacher:
    try:
        config = json.loads((folder / CONFIG).read_text())
        source = config.get("pretrained_cfg") or {}
        fixed = source.get("fixed_input_size", False)
        options: dict[str, Any] = {"img_size": size_px} if fixed else {}
        model: Any = timm.create_model(
            f"local-dir:{folder}", pretrained=True, num_classes=0, **options
        )
        mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
        return Teacher(TimmMap(model), name=reference, mean=mean, std=std, size_px=size_px)
    except (
        AssertionError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        SafetensorError,
    ) as error:
        problem = " ".join(str(error).split())[:400]
        raise UserError(
            f"objective.teacher={reference} cannot be a teacher of images of "
            f"{size_px[0]}x{size_px[1]} px: {problem}. objective.teacher_size_px gives it another "
            "size"
        ) from error


def _of_teacher(reference: str, problem: str) -> str:
    told = problem.replace("backbone=", "objective.teacher=").replace(
        "(backbone can be", "(a teacher can be"
    )
    prefix = "" if reference in told else f"objective.teacher={reference}: "
    moved = "; a run that is continued needs its teacher too: where it lies now may differ"
    return f"{prefix}{told}{moved if 'no such' in told else ''}"
