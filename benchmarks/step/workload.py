"""What all variants of a benchmark are given alike: architecture, weights, images and masks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.masking import mask_grid, random_mask
from ssl_swin.objectives.simmim import SimMIM

CONF = Path(__file__).parents[2] / "conf"
MASK_RATIO = 0.6  # the paper's
DISTURBANCE = 0.02  # deviation of what is added to every weight, about that of their initial values
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # fp16 without a scaler of the loss
PRECISIONS = ("fp32", *AUTOCAST)


@dataclass(frozen=True)
class Workload:
    """A training step to be done in several ways.

    Attributes:
        weights: Our model on the CPU, with the weights that every variant starts from.
        images: Normalised (B, C, H, W), on the device.
        precision: "fp32", or "bf16" or "fp16" for autocast.
        drop_path_rate: In training.
        grad_checkpointing: Whether blocks are computed again in the backward pass.
        mask_ratio: Ratio of masked patches, each as large as the encoder's stride.
        seed: Of the masks.
    """

    weights: SimMIM
    images: Tensor
    precision: str = "fp32"
    drop_path_rate: float = 0.0
    grad_checkpointing: bool = False
    mask_ratio: float = MASK_RATIO
    seed: int = 0

    @property
    def encoder(self) -> SwinEncoder:
        """The encoder inside `weights`."""
        encoder = self.weights.encoder
        if not isinstance(encoder, SwinEncoder):
            raise UserError(f"these benchmarks compare Swins, not a {encoder.title}")
        return encoder

    @property
    def device(self) -> torch.device:
        """Where the step is done."""
        return self.images.device

    def fresh_encoder(self) -> SwinEncoder:
        """Builds the encoder for training, with weights of its own."""
        encoder = build_encoder(
            self.encoder.architecture,
            self.encoder.model_args,
            drop_path_rate=self.drop_path_rate,
            grad_checkpointing=self.grad_checkpointing,
        )
        assert isinstance(encoder, SwinEncoder)
        return encoder

    def mask(self, number: int) -> Tensor:
        """Draws the mask of a step, bool (B, rows, columns) on the device, one per image."""
        grid = mask_grid(
            self.encoder.img_size_px,
            self.encoder.stride,
            patch_size_px=self.encoder.patch_size_px,
        )
        generator = np.random.default_rng((self.seed, number))
        mask = random_mask(grid, self.mask_ratio, generator, batch_size=len(self.images))
        return mask.to(self.device)


def model_names() -> list[str]:
    """Lists the Swins of `conf/model`."""
    settings = {path.stem: path.read_text() for path in (CONF / "model").glob("*.yaml")}
    return sorted(name for name, text in settings.items() if "\n  - _swin\n" in text)


def load_settings(*overrides: str) -> DictConfig:
    """Reads the settings of a pretraining, as a run would; overrides are Hydra's."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("pretrain", overrides=list(overrides))


def make_workload(
    model: str,
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "fp32",
    img_size_px: int | None = None,
    grad_checkpointing: bool = False,
    mask_ratio: float = MASK_RATIO,
    seed: int = 0,
) -> Workload:
    """Builds a workload around a model of `conf/model`.

    Args:
        model: Its name.
        batch_size: Number of images.
        device: For the step.
        precision: One of `PRECISIONS`.
        img_size_px: Side of the images; the default is the model's own.
        grad_checkpointing: See `Workload`.
        mask_ratio: See `Workload`.
        seed: Of weights, images and masks.

    Raises:
        UserError: If there is no such model, or it does not take the size.
    """
    size = [] if img_size_px is None else [f"model.img_size_px={img_size_px}"]
    if model not in model_names():
        raise UserError(f"unknown model {model!r}; known: {', '.join(model_names())}")
    settings = load_settings(f"model={model}", *size).model
    torch.manual_seed(seed)
    try:
        encoder = instantiate(settings)
    except InstantiationException as error:
        raise (error.__cause__ if isinstance(error.__cause__, UserError) else error) from None
    return workload_of(
        encoder,
        batch_size=batch_size,
        device=device,
        precision=precision,
        drop_path_rate=settings.drop_path_rate,
        grad_checkpointing=grad_checkpointing,
        mask_ratio=mask_ratio,
        seed=seed,
    )


def workload_of(
    encoder: SwinEncoder,
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "fp32",
    drop_path_rate: float = 0.0,
    grad_checkpointing: bool = False,
    mask_ratio: float = MASK_RATIO,
    seed: int = 0,
) -> Workload:
    """Builds a workload around an encoder, whose weights are disturbed.

    Raises:
        UserError: If there is no image in a batch.
    """
    if batch_size < 1:
        raise UserError(f"a batch needs at least one image, got {batch_size}")
    weights = SimMIM(encoder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # so that no weight is at a value that hides a mistake
        for parameter in weights.parameters():
            parameter.add_(DISTURBANCE * torch.randn(parameter.shape, generator=generator))
    images = torch.randn(batch_size, encoder.in_chans, *encoder.img_size_px, generator=generator)
    return Workload(
        weights,
        images.to(device),
        precision=precision,
        drop_path_rate=drop_path_rate,
        grad_checkpointing=grad_checkpointing,
        mask_ratio=mask_ratio,
        seed=seed,
    )


def autocast(workload: Workload) -> torch.autocast:
    """Returns the context in which a workload's forward pass runs."""
    dtype = AUTOCAST.get(workload.precision)
    return torch.autocast(workload.device.type, dtype, enabled=dtype is not None)


def pick_device(name: str) -> torch.device:
    """Returns the device of a name; "auto" is a GPU if there is one.

    Raises:
        UserError: If it is neither a CPU nor a GPU that is here.
    """
    kind = name.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise UserError(f"device must be auto, cpu or cuda, got {name!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name}: torch sees no CUDA GPU here")
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
