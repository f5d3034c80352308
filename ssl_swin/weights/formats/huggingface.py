"""Hugging Face transformers: `SwinModel`, `Swinv2Model` and what is built on them.

The names are those on disk, which `save_pretrained` writes. Those that version 5 has in memory, as
in a `state_dict()`, are read too. Query, key and value are three layers there. Swin V1 keeps
position biases of the one configured window in every stage, so it cannot hold a stage whose map is
smaller.
"""

from typing import Any

from ssl_swin.weights.formats.format import (
    BLOCK,
    INDEX,
    Config,
    Exported,
    FileSettings,
    Format,
    every,
    needs_one_window,
    needs_square,
)
from ssl_swin.weights.formats.key_maps import Rule, rename, same
from ssl_swin.weights.formats.tensor_maps import join_rows, split_rows

THEIR_BLOCK = "encoder.layers.{s}.blocks.{b}"
SELF = f"{THEIR_BLOCK}.attention.self"

_SPLIT = "query, key and value are apart there"
_SHARED = (
    Rule(
        (f"{BLOCK}.attn.qkv.weight",),
        (f"{SELF}.query.weight", f"{SELF}.key.weight", f"{SELF}.value.weight"),
        join_rows,
        split_rows,
        _SPLIT,
    ),
    *rename(
        {
            "patch_embed.proj.{p}": "embeddings.patch_embeddings.projection.{p}",
            "patch_embed.norm.{p}": "embeddings.norm.{p}",
            "mask_token": "embeddings.mask_token",
            "norm.{p}": "layernorm.{p}",
            "head.fc.{p}": "classifier.{p}",
            f"{BLOCK}.norm1.{{p}}": f"{THEIR_BLOCK}.layernorm_before.{{p}}",
            f"{BLOCK}.norm2.{{p}}": f"{THEIR_BLOCK}.layernorm_after.{{p}}",
            f"{BLOCK}.attn.proj.{{p}}": f"{THEIR_BLOCK}.attention.output.dense.{{p}}",
            f"{BLOCK}.mlp.fc1.{{p}}": f"{THEIR_BLOCK}.intermediate.dense.{{p}}",
            f"{BLOCK}.mlp.fc2.{{p}}": f"{THEIR_BLOCK}.output.dense.{{p}}",
            f"{BLOCK}.attn.{INDEX}": f"{SELF}.{INDEX}",
        }
    ),
    *rename(
        {
            "layers.{s+1}.downsample.reduction.weight": (
                "encoder.layers.{s}.downsample.reduction.weight"
            ),
            "layers.{s+1}.downsample.norm.{p}": "encoder.layers.{s}.downsample.norm.{p}",
        },
        reason="patch merging ends a stage there and begins the next one here",
    ),
    *same("decoder.0.{p}"),
)
# What version 5 calls the same in memory, for either model as far as it has been renamed.
_MEMORY = f"{THEIR_BLOCK}.attention"
_IN_MEMORY = (
    Rule(
        (f"{BLOCK}.attn.qkv.weight",),
        tuple(f"{_MEMORY}.{part}_proj.weight" for part in "qkv"),
        join_rows,
        split_rows,
        _SPLIT,
    ),
    *rename(
        {
            f"{BLOCK}.attn.proj.{{p}}": f"{_MEMORY}.o_proj.{{p}}",
            f"{BLOCK}.mlp.fc1.{{p}}": f"{THEIR_BLOCK}.mlp.fc1.{{p}}",
            f"{BLOCK}.mlp.fc2.{{p}}": f"{THEIR_BLOCK}.mlp.fc2.{{p}}",
            f"{BLOCK}.attn.{INDEX}": f"{_MEMORY}.relative_position_bias.{INDEX}",
            "norm.{p}": "hidden_states_norms.stage4.{p}",  # of a backbone for detection
        }
    ),
)
_V1 = (
    Rule(
        (f"{BLOCK}.attn.qkv.bias",),
        (f"{SELF}.query.bias", f"{SELF}.key.bias", f"{SELF}.value.bias"),
        join_rows,
        split_rows,
        _SPLIT,
    ),
    *rename(
        {
            f"{BLOCK}.attn.relative_position_bias_table": f"{SELF}.relative_position_bias_table",
        }
    ),
    *_IN_MEMORY,
    Rule(
        (f"{BLOCK}.attn.qkv.bias",),
        tuple(f"{_MEMORY}.{part}_proj.bias" for part in "qkv"),
        join_rows,
        split_rows,
        _SPLIT,
    ),
    *rename(
        {
            f"{BLOCK}.attn.relative_position_bias_table": (
                f"{_MEMORY}.relative_position_bias.relative_position_bias_table"
            )
        }
    ),
)
_V2_OF_ATTENTION = {
    "logit_scale": "logit_scale",
    "cpb_mlp.{n}.{p}": "continuous_position_bias_mlp.{n}.{p}",
    "relative_coords_table": "relative_coords_table",
}
_V2 = (
    *rename(
        {f"{BLOCK}.attn.{ours}": f"{SELF}.{theirs}" for ours, theirs in _V2_OF_ATTENTION.items()}
        | {
            f"{BLOCK}.attn.q_bias": f"{SELF}.query.bias",
            f"{BLOCK}.attn.v_bias": f"{SELF}.value.bias",
        }
    ),
    *_IN_MEMORY,
    *rename(
        {f"{BLOCK}.attn.{ours}": f"{_MEMORY}.{theirs}" for ours, theirs in _V2_OF_ATTENTION.items()}
        | {
            f"{BLOCK}.attn.q_bias": f"{_MEMORY}.q_proj.bias",
            f"{BLOCK}.attn.v_bias": f"{_MEMORY}.v_proj.bias",
        }
    ),
)
_OUTPUT_NORMS = {
    r"swin\.layernorm\.(weight|bias)": "a norm that a backbone for detection does not use",
    r"hidden_states_norms\.stage[123]\.(weight|bias)": (
        "a norm of an earlier stage's output, which only a detector has"
    ),
}
_MODELS = {
    "simmim": "ForMaskedImageModeling",
    "classifier": "ForImageClassification",
    "none": "Model",
}
_CLAIMS = {
    "embed_dim": "embed_dim",
    "in_chans": "num_channels",
    "patch_size_px": "patch_size",
    "depths": "depths",
    "num_heads": "num_heads",
}
_PATCHES = r"embeddings\.patch_embeddings\.projection\.weight$"
_BIASES = r"attention\.(self\.)?(relative_position_bias\.)?relative_position_bias_table$"
_SCALES = r"attention\.(self\.)?logit_scale$"


def settings(config: Config) -> FileSettings:
    """Reads `config.json`, with `preprocessor_config.json` merged in where there is one."""
    config = {**config, **config.get("backbone_config", {})}
    size, trained = config.get("image_size"), config.get("pretrained_window_sizes")
    mean, std = config.get("image_mean"), config.get("image_std")
    return FileSettings(
        img_size_px=size if isinstance(size, int) or size is None else tuple(size),
        window_size=config.get("window_size"),
        pretrained_window_sizes=tuple(trained) if trained else None,
        mean=tuple(mean) if mean else None,
        std=tuple(std) if std else None,
        claims={ours: config[theirs] for ours, theirs in _CLAIMS.items() if theirs in config},
    )


def configs(exported: Exported) -> dict[str, Config]:
    """Writes `config.json` and `preprocessor_config.json`."""
    encoder, arguments = exported.encoder, exported.encoder.model_args
    is_v1, side_px = encoder.kind == "Swin V1", encoder.img_size_px[0]
    config: dict[str, Any] = {
        "architectures": [f"{'Swin' if is_v1 else 'Swinv2'}{_MODELS[exported.head]}"],
        "model_type": "swin" if is_v1 else "swinv2",
        "image_size": side_px,
        "patch_size": encoder.patch_size_px,
        "num_channels": encoder.in_chans,
        "embed_dim": encoder.embed_dim,
        "depths": list(encoder.depths),
        "num_heads": list(arguments["num_heads"]),
        "window_size": arguments["window_size"],
        "encoder_stride": encoder.stride,
        "torch_dtype": "float32",
    }
    if not is_v1:
        trained = arguments["pretrained_window_sizes"]
        config["pretrained_window_sizes"] = [0 if window == 1 else window for window in trained]
    if exported.num_classes:
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(exported.num_classes)}
        config["label2id"] = {label: int(i) for i, label in config["id2label"].items()}
    preprocessing = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": side_px, "width": side_px},
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(exported.mean),
        "image_std": list(exported.std),
    }
    return {"config.json": config, "preprocessor_config.json": preprocessing}


HUGGINGFACE = Format(
    name="huggingface",
    title="Hugging Face's Swin",
    rules=(*_SHARED, *_V1),
    recognised_by=(_PATCHES, _BIASES),
    kinds=("Swin V1",),
    prefixes=("swin.", "backbone.", ""),
    dropped=_OUTPUT_NORMS,
    limits=every(needs_square, needs_one_window),
    settings=settings,
    holds_simmim=True,
    layout="folder",
    configs=configs,
)
HUGGINGFACE_V2 = Format(
    name="huggingface",
    title="Hugging Face's Swinv2",
    rules=(*_SHARED, *_V2),
    recognised_by=(_PATCHES, _SCALES),
    kinds=("Swin V2",),
    prefixes=("swinv2.", ""),
    dropped=_OUTPUT_NORMS,
    limits=needs_square,
    settings=settings,
    holds_simmim=True,
    layout="folder",
    configs=configs,
)
