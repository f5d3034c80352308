"""Others' implementations of SimMIM, with the weights of ours."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from benchmarks.step.workload import Workload
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM, masked_l1
from ssl_swin.weights.formats.exporting import check_representable, export_state
from ssl_swin.weights.formats.format import Exported
from ssl_swin.weights.formats.known_formats import format_for


class Peer(NamedTuple):
    """One of them, on the CPU, ready for training."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]  # of images, and mask of patches (B, H/p, W/p)
    mask_dtype: torch.dtype = torch.bool  # as its loader makes it


class TimmSimMIM(nn.Module):
    """SimMIM around a timm model that is used as it is."""

    def __init__(self, model: Any, ours: SimMIM) -> None:
        """Takes the weights of our model."""
        super().__init__()
        self.model = model
        self.mask_token = nn.Parameter(torch.zeros_like(ours.mask_token))
        head: Any = ours.decoder[0].weight  # (stride ** 2 * C, num_features, 1, 1)
        self.decoder = nn.Sequential(
            nn.Conv2d(ours.encoder.num_features, len(head), kernel_size=1),
            nn.PixelShuffle(ours.encoder.stride),
        )
        state = ours.state_dict()
        self.load_state_dict({name.removeprefix("encoder."): state[name] for name in state})

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss for images (B, C, H, W) and a mask of patches (B, H/p, W/p)."""
        tokens = self.model.patch_embed(images)
        hidden = mask[..., None].to(tokens.dtype)
        tokens = tokens * (1 - hidden) + self.mask_token * hidden
        features = self.model.norm(self.model.layers(tokens)).permute(0, 3, 1, 2)
        return masked_l1(self.decoder(features), images, mask)


def build_timm(workload: Workload, _: ModuleType | None) -> Peer:
    """Builds SimMIM on timm's Swin."""
    encoder = workload.encoder
    backbone: Any = timm.create_model(
        encoder.architecture,
        num_classes=0,
        drop_path_rate=workload.drop_path_rate,
        **encoder.model_args,
    )
    backbone.set_grad_checkpointing(workload.grad_checkpointing)
    model = TimmSimMIM(backbone, workload.weights)
    return Peer(model, model)


def build_original(workload: Workload, original: ModuleType | None) -> Peer:
    """Builds the original's model, of a module that `checkout.import_simmim` gave.

    Raises:
        UserError: If there is none, or it has no such model.
    """
    encoder = workload.encoder
    if original is None:
        raise UserError("no checkout of microsoft/SimMIM was given: --reference PATH")
    if encoder.version != 1:
        raise UserError("the original's checkout has no Swin V2")
    height_px, width_px = encoder.img_size_px
    if height_px != width_px or encoder.in_chans != 3:
        raise UserError("the original takes square images of three channels only")
    arguments = encoder.model_args
    backbone = original.SwinTransformerForSimMIM(
        img_size=height_px,
        patch_size=encoder.patch_size_px,
        in_chans=encoder.in_chans,
        num_classes=0,
        embed_dim=encoder.embed_dim,
        depths=list(encoder.depths),
        num_heads=list(arguments["num_heads"]),
        window_size=arguments["window_size"],
        drop_path_rate=workload.drop_path_rate,
        use_checkpoint=workload.grad_checkpointing,
    )
    model = original.SimMIM(backbone, encoder_stride=encoder.stride)
    model.load_state_dict(_exported(workload, "simmim"))
    return Peer(model, model, torch.int64)


def build_huggingface(workload: Workload, _: ModuleType | None) -> Peer:
    """Builds the model for masked images of Hugging Face's transformers.

    Raises:
        UserError: If it cannot represent ours.
    """
    import transformers

    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    described = Exported(workload.encoder, (0.0,) * 3, (1.0,) * 3, "simmim", 0)
    target = format_for("huggingface", workload.encoder)
    check_representable(workload.encoder, target)
    settings = dict(target.configs(described)["config.json"])
    (class_name,) = settings["architectures"]
    model_class: Any = getattr(transformers, class_name)
    settings["drop_path_rate"] = workload.drop_path_rate
    model = model_class.from_pretrained(
        None,
        config=model_class.config_class.from_dict(settings),
        state_dict=_exported(workload, "huggingface"),
    )
    if workload.grad_checkpointing:
        model.gradient_checkpointing_enable()

    def loss(images: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = model(images, bool_masked_pos=mask.flatten(1)).loss
        return found

    return Peer(model, loss)


def _exported(workload: Workload, target: str) -> dict[str, Tensor]:
    state = workload.weights.state_dict()
    heads = {name: state[name] for name in state if not name.startswith("encoder.")}
    exported, _ = export_state(workload.encoder, heads, format_for(target, workload.encoder))
    # Hugging Face's loader keeps the tensors that it is given, and training would change ours.
    return {name: tensor.clone() for name, tensor in exported.items()}


PEERS: Mapping[str, Callable[[Workload, ModuleType | None], Peer]] = {
    "original": build_original,
    "timm": build_timm,
    "huggingface": build_huggingface,
}
