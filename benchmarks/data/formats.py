"""Largest differences between our models and the same weights in other implementations.

python -m benchmarks.data.formats [--tiny]

Each implementation's own class is built with random, disturbed weights. "out" is export: our model
against theirs, loaded from the file that we wrote. "in" is import: theirs against ours, loaded from
the file that it wrote. What is compared is the last feature map, and for `SimMIM` the reconstructed
image; "scale" is the largest value of it.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torchvision.models import swin_transformer as tv

from ssl_swin.encoders.swin import SwinEncoder, swin
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import ImportedBackbone, import_weights, save_import

SMALL: dict[str, Any] = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
TINY: dict[str, Any] = {"embed_dim": 8, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
SIZES = {1: {"img_size_px": 192, "window_size": 6}, 2: {"img_size_px": 256, "window_size": 8}}
TINY_SIZES = {"img_size_px": 128, "window_size": 4}  # a window of 4 in every stage


class Target(NamedTuple):
    """One model class of another implementation.

    Attributes:
        format_name: As in `ssl-swin export --to`.
        model: Name of the class.
        version: Of Swin.
        build: Makes the model for an encoder, with weights of its own.
        load: Reads the file that we exported into such a model.
        save: Writes the model's file into a folder, and gives what to import.
        run: Images and mask of patches to feature map or image.
    """

    format_name: str
    model: str
    version: int
    build: Callable[[SwinEncoder], nn.Module]
    load: Callable[[nn.Module, Path], nn.Module]
    save: Callable[[nn.Module, Path], Path]
    run: Callable[[nn.Module, Tensor, Tensor], Tensor]

    @property
    def is_simmim(self) -> bool:
        """Whether it reconstructs images."""
        return self.model.endswith("MaskedImageModeling")


class Difference(NamedTuple):
    """One line of the table."""

    target: Target
    direction: str  # "out" or "in"
    largest: float
    scale: float


def disturb(module: nn.Module, seed: int) -> None:
    """Adds noise to every parameter, so that none is at a value that hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def measure(target: Target, encoder: SwinEncoder, folder: Path) -> Iterator[Difference]:
    """Compares both directions.

    Args:
        target: Other implementation.
        encoder: Gives the architecture; its weights are disturbed.
        folder: For the files.
    """
    side_px = encoder.img_size_px[0]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, side_px, side_px, generator=generator)
    mask = torch.rand(2, side_px // 4, side_px // 4, generator=generator) < 0.5
    model = SimMIM(encoder).eval()
    disturb(model, 1)
    normalisation = (0.5, 0.5, 0.5)
    save_import(
        folder / "ours", ImportedBackbone(encoder, normalisation, normalisation, model), card=""
    )
    export_weights(folder / "ours", folder / "out", to=target.format_name)
    with torch.no_grad():
        theirs = target.load(target.build(encoder), folder / "out").eval()
        expected = run_ours(target, model, images, mask)
        yield difference(target, "out", target.run(theirs, images, mask), expected)
        disturb(theirs, 2)
        imported, _ = import_weights(
            target.save(theirs, folder),
            img_size_px=side_px,
            window_size=encoder.model_args["window_size"],
        )
        if target.is_simmim and imported.simmim is not None:
            model = imported.simmim
        else:
            model.encoder = imported.encoder
        expected = target.run(theirs, images, mask)
        yield difference(target, "in", run_ours(target, model.eval(), images, mask), expected)


def difference(target: Target, direction: str, found: Tensor, expected: Tensor) -> Difference:
    """Compares two outputs."""
    largest = (found - expected).abs().max().item()
    return Difference(target, direction, largest, expected.abs().max().item())


def run_ours(target: Target, model: SimMIM, images: Tensor, mask: Tensor) -> Tensor:
    """Returns the expected result of `target.run`."""
    if target.is_simmim:
        return model.reconstruct(images, mask).prediction
    features: Tensor = model.encoder(images)
    return features


def _timm(encoder: SwinEncoder) -> nn.Module:
    return timm.create_model(encoder.architecture, num_classes=0, **encoder.model_args)


def _load_timm(model: nn.Module, file: Path) -> nn.Module:
    file.rename(file.with_suffix(".safetensors"))
    timm.models.load_checkpoint(model, str(file.with_suffix(".safetensors")), strict=True)
    return model


def _save_timm(model: nn.Module, folder: Path) -> Path:
    safetensors.torch.save_file(model.state_dict(), folder / "timm.safetensors")
    return folder / "timm.safetensors"


def _torchvision(encoder: SwinEncoder) -> nn.Module:
    arguments, is_v1 = encoder.model_args, encoder.version == 1
    return tv.SwinTransformer(
        patch_size=[encoder.patch_size_px] * 2,
        embed_dim=encoder.embed_dim,
        depths=list(encoder.depths),
        num_heads=list(arguments["num_heads"]),
        window_size=[arguments["window_size"]] * 2,
        block=tv.SwinTransformerBlock if is_v1 else tv.SwinTransformerBlockV2,
        downsample_layer=tv.PatchMerging if is_v1 else tv.PatchMergingV2,
    )


def _load_torchvision(model: nn.Module, file: Path) -> nn.Module:
    head = {name: t for name, t in model.state_dict().items() if name.startswith("head.")}
    model.load_state_dict(torch.load(file, weights_only=True) | head)
    return model


def _save_pth(model: nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "theirs.pth")
    return folder / "theirs.pth"


def _run_torchvision(model: Any, images: Tensor, mask: Tensor) -> Tensor:
    features: Tensor = model.permute(model.norm(model.features(images)))
    return features


def _huggingface(name: str) -> dict[str, Any]:
    import transformers

    model_class = getattr(transformers, name)

    def build(encoder: SwinEncoder) -> nn.Module:
        return nn.Identity()  # the exported folder says what to build

    def load(model: nn.Module, folder: Path) -> nn.Module:
        loaded, problems = model_class.from_pretrained(folder, output_loading_info=True)
        unexpected = {name for name in problems["unexpected_keys"] if "decoder" not in name}
        unexpected = {name for name in unexpected if "mask_token" not in name}
        if problems["missing_keys"] or unexpected or problems["mismatched_keys"]:
            raise SystemExit(f"{name} does not load what we exported: {problems}")
        return loaded

    def save(model: Any, folder: Path) -> Path:
        model.save_pretrained(folder / "theirs")
        return folder / "theirs"

    def run(model: Any, images: Tensor, mask: Tensor) -> Tensor:
        if "Masked" in name:
            return model(images, bool_masked_pos=mask.flatten(1)).reconstruction
        tokens = model(images).last_hidden_state.transpose(1, 2)
        side = round(tokens.shape[-1] ** 0.5)
        return tokens.unflatten(-1, (side, side))

    return {"build": build, "load": load, "save": save, "run": run}


class UnfoldMerging(nn.Module):
    """Patch merging as OpenMMLab does it: `torch.nn.Unfold`, norm, reduction; NHWC."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Halves a map (B, H, W, C) to (B, H/2, W/2, 2 C)."""
        count, height, width, _ = tokens.shape
        pixels = nn.functional.unfold(tokens.permute(0, 3, 1, 2), kernel_size=2, stride=2)
        merged: Tensor = self.reduction(self.norm(pixels.transpose(1, 2)))
        return merged.reshape(count, height // 2, width // 2, -1)


# OpenMMLab's names, from left to right those of timm; by hand, apart from the key map under test.
OPENMMLAB_NAMES = (
    ("backbone.", ""),
    ("stages.", "layers."),
    ("attn.w_msa.", "attn."),
    ("ffn.layers.0.0.", "mlp.fc1."),
    ("ffn.layers.1.", "mlp.fc2."),
    ("patch_embed.projection.", "patch_embed.proj."),
)


def _openmmlab(encoder: SwinEncoder) -> nn.Module:
    model: Any = _timm(encoder)
    for stage, dim in enumerate(encoder.stage_dims[:-1], start=1):
        model.layers[stage].downsample = UnfoldMerging(dim)
    return model


def _load_openmmlab(model: nn.Module, file: Path) -> nn.Module:
    state = {}
    for name, tensor in torch.load(file, weights_only=True)["state_dict"].items():
        if not name.startswith("backbone.") or name.endswith(("_index", "mask_token")):
            continue
        for theirs, timms in OPENMMLAB_NAMES:
            name = name.replace(theirs, timms)
        name = re.sub(r"^norm3\.", "norm.", name)
        state[_move_merging(name, 1)] = tensor
    model.load_state_dict(state)
    return model


def _save_openmmlab(model: nn.Module, folder: Path) -> Path:
    state = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"^norm\.", "norm3.", _move_merging(name, -1))
        for theirs, timms in OPENMMLAB_NAMES[1:]:
            name = name.replace(timms, theirs)
        state[f"backbone.{name}"] = tensor
    torch.save({"meta": {}, "state_dict": state}, folder / "theirs.pth")
    return folder / "theirs.pth"


def _move_merging(name: str, stages: int) -> str:
    found = re.fullmatch(r"layers\.(\d+)(\.downsample\..*)", name)
    return f"layers.{int(found[1]) + stages}{found[2]}" if found else name


def _run_timm(model: Any, images: Tensor, mask: Tensor) -> Tensor:
    features: Tensor = model.forward_features(images).permute(0, 3, 1, 2)
    return features


def targets() -> Iterator[Target]:
    """Lists the model classes of others that can be installed, and a stand-in for OpenMMLab's."""
    for version, name in ((1, "SwinTransformer"), (2, "SwinTransformerV2")):
        yield Target("timm", name, version, _timm, _load_timm, _save_timm, _run_timm)
    yield Target(
        "openmmlab",
        "timm's with OpenMMLab's patch merging",
        1,
        _openmmlab,
        _load_openmmlab,
        _save_openmmlab,
        _run_timm,
    )
    for version in (1, 2):
        model = f"SwinTransformer{' of V2 blocks' if version == 2 else ''}"
        yield Target(
            "torchvision",
            model,
            version,
            _torchvision,
            _load_torchvision,
            _save_pth,
            _run_torchvision,
        )
    for version, family in ((1, "Swin"), (2, "Swinv2")):
        for model in (f"{family}Model", f"{family}ForMaskedImageModeling"):
            yield Target("huggingface", model, version, **_huggingface(model))


def main() -> None:
    """Prints the table, Markdown."""
    torch.manual_seed(0)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand weights")
    arguments = parser.parse_args()
    print("| format | model | version | direction | largest difference | scale |")
    print("|---|---|---|---|---|---|")
    for target in targets():
        size = TINY_SIZES | TINY if arguments.tiny else SIZES[target.version] | SMALL
        encoder = swin(version=target.version, **size).eval()
        with TemporaryDirectory() as folder:
            for _, direction, largest, scale in measure(target, encoder, Path(folder)):
                facts = (target.format_name, target.model, target.version, direction)
                print(f"| {' | '.join(map(str, facts))} | {largest:.1e} | {scale:.1f} |")


if __name__ == "__main__":
    main()
