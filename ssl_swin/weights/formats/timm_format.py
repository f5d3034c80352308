"""timm's names, which are ours."""

from collections.abc import Mapping

from ssl_swin.weights.formats.format import (
    COMMON_BLOCK,
    COMMON_STEM,
    COMMON_TABLES,
    Config,
    FileSettings,
    Format,
)
from ssl_swin.weights.formats.key_maps import rename, same


def settings(config: Config) -> FileSettings:
    """Reads the `config.json` of timm's hub layout, which is also that of our backbones."""
    arguments, cfg = config.get("model_args"), config.get("pretrained_cfg")
    arguments = arguments if isinstance(arguments, Mapping) else {}
    cfg = cfg if isinstance(cfg, Mapping) else {}
    size = arguments.get("img_size") or (cfg.get("input_size") or (None, None))[1:]
    trained = arguments.get("pretrained_window_sizes")
    return FileSettings(
        img_size_px=size if isinstance(size, int) else tuple(size) if size and all(size) else None,
        window_size=arguments.get("window_size"),
        pretrained_window_sizes=tuple(trained) if trained else None,
        mean=tuple(cfg["mean"]) if "mean" in cfg else None,
        std=tuple(cfg["std"]) if "std" in cfg else None,
        claims={ours: arguments[name] for ours, name in _CLAIMS.items() if name in arguments},
    )


_CLAIMS = {
    "embed_dim": "embed_dim",
    "in_chans": "in_chans",
    "patch_size_px": "patch_size",
    "depths": "depths",
    "num_heads": "num_heads",
}

TIMM = Format(
    name="timm",
    title="timm",
    rules=(
        *COMMON_STEM,
        *COMMON_BLOCK,
        *COMMON_TABLES,
        *same(
            "layers.{s+1}.downsample.reduction.weight",
            "layers.{s+1}.downsample.norm.{p}",
            "norm.{p}",
            "head.fc.{p}",
            "mask_token",
            "decoder.0.{p}",
        ),
        *rename({"head.fc.{p}": "head.{p}"}),  # ours, beside the encoder
    ),
    recognised_by=(
        r"^(encoder\.model\.)?layers\.0\.blocks\.0\.attn\.qkv\.weight$",
        r"^(encoder\.model\.)?norm\.weight$",
        r"\A(?![\s\S]*layers\.0\.downsample\.)",
    ),
    prefixes=("", "encoder.model."),
    settings=settings,
    layout="safetensors",
)
