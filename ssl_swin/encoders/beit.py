"""The ViT of SimMIM as an encoder: timm's BEiT behind the common face.

It has no absolute positions, one table of relative position biases that all blocks share, and layer
scale; timm's module equals the original's under the same names. Fine-tuning gives every block its
own table and moves the last norm behind the pooling. Positions at the input, as in MAE, are an
option.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_swin.arguments import Above0, Positive, RateBelow1, SizePx, checked
from ssl_swin.encoders.positions import sine_cosine
from ssl_swin.encoders.sizes import Size, Window, as_size
from ssl_swin.encoders.visible import VisibleCells, VisibleEncoder, VisiblePlan, visible_cells
from ssl_swin.errors import UserError

# The timm architecture that every encoder here varies; the hand-off writes this name.
BEIT_ARCHITECTURE = "beit_base_patch16_224"

_SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
_INIT_STD = 0.02


class BeitEncoder(VisibleEncoder):
    """A BEiT-style ViT; `Encoder` lists the attributes.

    A ViT has no stages; here its maps are those after every second block, counted from the last, so
    of twelve blocks map 4 is that after block 8, which the paper's linear probe takes.

    Attributes:
        stage_blocks: Number, from 1, of the block that each map of `stages` comes after.
    """

    family = "vit"
    title = "ViT (BEiT)"
    architecture = BEIT_ARCHITECTURE
    architectures = (BEIT_ARCHITECTURE,)
    head_prefix = "head"
    timm_names = ("beit_*", "beitv2_*")
    required_args = frozenset({"img_size", "patch_size", "in_chans", "embed_dim", "num_heads"})
    num_class_token_rows = 3
    positions = ("pos_embed", 1)
    undecayed = r"(cls_token|pos_embed|relative_position_bias_table)$"
    # In pretraining the original has no keywords for a ViT at all, and its list of names lacks the
    # mask token; in fine-tuning it has none for the table.
    decayed_by_accident: ClassVar[Mapping[str, str]] = {
        "pretraining": r"(relative_position_bias_table|mask_token)$",
        "finetuning": r"relative_position_bias_table$",
    }
    init_bound = _INIT_STD  # the original's pretraining cuts every weight off at one deviation
    head_init_scale = 0.001

    def __init__(self, model: Any, *, model_args: dict[str, Any], drop_path_rate: float) -> None:
        super().__init__()
        self.model = model
        self.model_args = model_args
        self.drop_path_rate = drop_path_rate
        self.in_chans: int = model_args["in_chans"]
        self.img_size_px: Size = model_args["img_size"]
        self.patch_size_px: int = model_args["patch_size"]
        self.stride: int = self.patch_size_px
        self.mask_patch_size_px = 2 * self.patch_size_px
        self._grid: Size = tuple(model.patch_embed.grid_size)  # patches per side
        self.embed_dim: int = model_args["embed_dim"]
        self.num_features: int = self.embed_dim
        self.depths: tuple[int, ...] = (model_args["depth"],)
        self.stage_blocks = tuple(sorted(range(model_args["depth"], 0, -2)))
        self.stage_dims: tuple[int, ...] = (self.embed_dim,) * len(self.stage_blocks)

    @property
    def kind(self) -> str:
        """See `Encoder.kind`: fine-tuning gives every block a table, and norms what is pooled."""
        arguments = self.model_args
        is_finetuned = arguments["use_fc_norm"] and not arguments["use_shared_rel_pos_bias"]
        return "fine-tuned ViT" if is_finetuned else "ViT"

    def embed(self, images: Tensor) -> Tensor:
        """Turns normalised images (B, C, H, W) into patch tokens (B, H/p, W/p, embed_dim)."""
        tokens: Tensor = self.model.patch_embed(images)
        return tokens.reshape(len(tokens), *self._grid, self.embed_dim)

    def encode(self, tokens: Tensor) -> Tensor:
        """Runs all blocks on patch tokens and a cls token; gives the map (B, D, H/p, W/p)."""
        sequence, bias = self._with_cls(tokens), self._shared_bias()
        for block in self.model.blocks:
            sequence = self._run(block, sequence, bias)
        return self._to_map(self.model.norm(sequence))

    @property
    def last_grid(self) -> tuple[int, int]:
        """See `VisibleEncoder.last_grid`."""
        return self._grid

    def visible_planner(self) -> Callable[[Tensor], VisibleCells]:
        """See `VisibleEncoder.visible_planner`."""
        if not self.model_args["use_shared_rel_pos_bias"]:
            raise UserError(
                f"a {self.title} whose blocks have position tables of their own, as fine-tuning "
                "makes them, cannot leave out patches; objective=simmim takes it, as does every "
                "objective that is not sparse"
            )
        return partial(_list_visible, grid=self._grid)

    def encode_visible(self, images: Tensor, plan: VisiblePlan) -> Tensor:
        """Encodes visible patches and the cls token alone.

        Equal to the dense encoder with every masked token excluded as a key. Position biases are
        those of the patches' own places.

        Args:
            images: Normalised (B, C, H, W).
            plan: What the planner made of the batch's mask, on the images' device.

        Returns:
            Features (B, V, num_features), in the order of `plan.visible`.
        """
        visible = plan.visible.expand(len(images), -1)
        tokens = self.embed(images).flatten(1, 2)
        chosen = tokens.gather(1, visible[..., None].expand(-1, -1, self.embed_dim))
        sequence = self._with_cls(chosen[:, None], visible)
        bias = self._bias_between(plan.visible)
        for block in self.model.blocks:
            sequence = self._run(block, sequence, bias)
        features: Tensor = self.model.norm(sequence)
        return features[:, 1:]

    def stages(self, images: Tensor) -> list[Tensor]:
        """Returns the map (B, D, H/p, W/p) after each of `stage_blocks`; the last one normed."""
        sequence, bias = self._with_cls(self.embed(images)), self._shared_bias()
        maps = []
        for number, block in enumerate(self.model.blocks, start=1):
            sequence = self._run(block, sequence, bias)
            if number in self.stage_blocks:
                maps.append(self._to_map(sequence))
        return [*maps[:-1], self._to_map(self.model.norm(sequence))]

    def pool(self, features: Tensor) -> Tensor:
        """Averages the last map (B, D, h, w) over space; norms it where the blocks' end did not."""
        pooled: Tensor = self.model.fc_norm(features.mean(dim=(2, 3)))
        return pooled

    def blocks(self) -> list[nn.Module]:
        """Return the transformer's blocks."""
        return list(self.model.blocks)

    def compile_blocks(self, *any_sizes: Size) -> None:
        """Compiles each block (`torch.compile`) at the first step; names stay as they are."""
        for block in self.model.blocks:
            block.compile(mode=self.compile_mode)

    def for_finetuning(self) -> "BeitEncoder":
        """Returns an encoder with these weights of the architecture that the recipe fine-tunes.

        Every block starts with a copy of the shared table. The pretraining's last norm is dropped,
        and a fresh one acts on the average of the patch tokens.

        Returns:
            This very encoder, if it is of that architecture already.
        """
        if not self.model_args["use_shared_rel_pos_bias"] and self.model_args["use_fc_norm"]:
            return self
        encoder = self._as_finetuned()
        state = self.model.state_dict()
        kept = {name: t for name, t in state.items() if not name.startswith(("norm.", "fc_norm."))}
        if (table := kept.pop(_SHARED_TABLE, None)) is not None:
            for block in range(self.model_args["depth"]):
                kept[f"blocks.{block}.attn.relative_position_bias_table"] = table
        encoder.model.load_state_dict(encoder.model.state_dict() | kept)
        return encoder.to(self.model.cls_token.device).train(self.training)

    @classmethod
    def rebuild(cls, architecture: str, model_args: Mapping[str, Any], **training: Any) -> Self:
        """See `Encoder.rebuild`."""
        encoder = beit(
            img_size_px=model_args["img_size"],
            patch_size_px=model_args["patch_size"],
            in_chans=model_args["in_chans"],
            embed_dim=model_args["embed_dim"],
            depth=model_args["depth"],
            num_heads=model_args["num_heads"],
            final_norm=not model_args["use_fc_norm"],
            shared_position_bias=model_args["use_shared_rel_pos_bias"],
            fixed_positions=model_args["use_abs_pos_emb"],
            layer_scale=model_args["init_values"],
            **training,
        )
        assert isinstance(encoder, cls)
        return encoder

    def layer_id(self, name: str) -> int:
        """See `vit_layer_id`."""
        return vit_layer_id(name, self.depths)

    def bias_windows(self) -> tuple[Window, ...]:
        """Return the patches per side, which all attend to each other."""
        high, wide = self._grid
        return (high if high == wide else (high, wide),)

    def resized_args(self, size: Size, window_size: int | None) -> dict[str, Any]:
        """See `Encoder.resized_args`.

        Raises:
            UserError: If a window is given.
        """
        if window_size is not None:
            raise UserError(f"window_size={window_size} is for a Swin; a {self.title} has none")
        return {**self.model_args, "img_size": size}

    def describe(self) -> str:
        """See `Encoder.describe`."""
        return f"width {self.embed_dim}, depth {self.depths[0]}, patch {self.patch_size_px} px"

    def _as_finetuned(self) -> "BeitEncoder":
        return beit(
            img_size_px=self.img_size_px,
            patch_size_px=self.patch_size_px,
            embed_dim=self.embed_dim,
            depth=self.model_args["depth"],
            num_heads=self.model_args["num_heads"],
            in_chans=self.in_chans,
            final_norm=False,
            shared_position_bias=False,
            fixed_positions=self.model_args["use_abs_pos_emb"],
            layer_scale=self.model_args["init_values"],
            drop_path_rate=self.drop_path_rate,
            grad_checkpointing=self.model.grad_checkpointing,
        )

    def _with_cls(self, tokens: Tensor, patches: Tensor | None = None) -> Tensor:
        """Puts the cls token before patch tokens, all of them or these, and adds positions."""
        cls = self.model.cls_token.expand(len(tokens), -1, -1)
        positions: Tensor | None = self.model.pos_embed
        tokens = tokens.flatten(1, 2)
        if positions is not None:
            of_tokens = positions[:, 1:] if patches is None else positions[0, 1:][patches]
            cls, tokens = cls + positions[:, :1], tokens + of_tokens
        return torch.cat([cls, tokens], dim=1)

    def _shared_bias(self) -> Tensor | None:
        shared = self.model.rel_pos_bias
        bias: Tensor | None = None if shared is None else shared()
        return bias

    def _bias_between(self, patches: Tensor) -> Tensor:
        """Returns the biases (P, heads, V + 1, V + 1) between the cls token and patches (P, V)."""
        bias = self._shared_bias()
        assert bias is not None
        number = bias.shape[-1]
        tokens = torch.cat([torch.zeros_like(patches[:, :1]), patches + 1], dim=1)
        pairs = tokens[:, :, None] * number + tokens[:, None, :]
        chosen = bias.reshape(-1, number * number)[:, pairs]
        return chosen.transpose(0, 1).contiguous()

    def _run(self, block: nn.Module, sequence: Tensor, bias: Tensor | None) -> Tensor:
        recompute = partial(checkpoint, block, use_reentrant=False)
        run: Callable[..., Tensor] = recompute if self.model.grad_checkpointing else block
        return run(sequence, bias)

    def _to_map(self, sequence: Tensor) -> Tensor:
        patches = sequence[:, 1:].reshape(len(sequence), *self._grid, self.embed_dim)
        return patches.permute(0, 3, 1, 2).contiguous()


def _list_visible(mask: Tensor, grid: tuple[int, int]) -> VisibleCells:
    return VisibleCells(visible_cells(mask.cpu(), grid))


def vit_layer_id(name: str, depths: Sequence[int]) -> int:
    """Number the layers of a ViT for layer-wise learning rates, as the original does.

    The patch embedding and the tokens are 0, blocks count from 1 and include a table of their own;
    a shared table, the norms and the head come last.

    Args:
        name: Dotted timm name of the parameter, with any prefix.
        depths: The number of blocks, alone.
    """
    if "patch_embed." in name or name.endswith(("cls_token", "mask_token")):
        return 0
    if match := re.search(r"blocks\.(\d+)\.", name):
        return int(match.group(1)) + 1
    return sum(depths) + 1


@checked
def beit(
    *,
    img_size_px: SizePx,
    embed_dim: Positive,
    depth: Positive,
    num_heads: Positive,
    patch_size_px: Positive = 16,
    in_chans: Positive = 3,
    final_norm: bool = True,
    shared_position_bias: bool = True,
    fixed_positions: bool = False,
    layer_scale: Above0 = 0.1,
    initial_weights: Literal["simmim", "mae"] = "simmim",
    drop_path_rate: RateBelow1 = 0.0,
    grad_checkpointing: bool = False,
) -> BeitEncoder:
    """Builds a BEiT-style ViT encoder with random weights, as SimMIM's pretraining draws them.

    Args:
        img_size_px: Side of the square input, or (height, width).
        embed_dim: Width.
        depth: Number of blocks.
        num_heads: Attention heads.
        patch_size_px: Side of one patch.
        in_chans: Image channels, any number.
        final_norm: Norm the last block's tokens, as the original's shipped recipe does, although
            its authors speak of leaving it out. Without it, `pool` norms the average instead.
        shared_position_bias: One table for all blocks (pretraining), or one each (fine-tuning).
        fixed_positions: Add sines and cosines of its row and column to each patch token; no step
            changes them. As in MAE (arXiv:2111.06377); it has no tables beside them, as here.
        layer_scale: What the factors start at that each block's output is multiplied with.
        initial_weights: "simmim" draws them from N(0, 0.02^2), cut off at one deviation, and
            divides the last layers of block i by sqrt(2 i); "mae" takes Xavier's uniform ones.
        drop_path_rate: Drop path rate of the last block; rises linearly from 0 over the blocks.
        grad_checkpointing: Recompute each block in the backward pass: less memory, a third slower.

    Raises:
        UserError: If patches do not tile the image, heads do not divide the width, a number is out
            of range, or fixed positions do not fill the width.
    """
    size = as_size(img_size_px)
    _check(size, patch_size_px, embed_dim, num_heads)
    if fixed_positions and embed_dim % 4:
        raise UserError(
            f"model.fixed_positions=true needs a width that 4 divides, for the sine and cosine of "
            f"row and column; got {embed_dim}"
        )
    model_args: dict[str, Any] = {
        "img_size": size,
        "patch_size": patch_size_px,
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": num_heads,
        "init_values": layer_scale,
        "use_abs_pos_emb": fixed_positions,
        "use_shared_rel_pos_bias": shared_position_bias,
        "use_rel_pos_bias": not shared_position_bias,
        "use_fc_norm": not final_norm,
        "global_pool": "avg",
    }
    model = Beit(num_classes=0, drop_path_rate=drop_path_rate, **model_args)
    if initial_weights == "mae":
        _initialise_as_mae(model)
    else:
        _initialise(model)
    if fixed_positions:
        _set_positions(model)
    if shared_position_bias:
        model.fc_norm.requires_grad_(False)  # pretraining does not pool
    if grad_checkpointing:
        model.set_grad_checkpointing()
    return BeitEncoder(model, model_args=model_args, drop_path_rate=drop_path_rate)


def _check(size: Size, patch_size_px: int, embed_dim: int, num_heads: int) -> None:
    if embed_dim % num_heads:
        raise UserError(f"{num_heads} heads do not divide a width of {embed_dim}")
    for side_px in size:
        if side_px % patch_size_px:
            below = side_px // patch_size_px * patch_size_px
            fitting = [side for side in (below, below + patch_size_px) if side]
            raise UserError(
                f"an image side of {side_px} px does not divide into patches of {patch_size_px} "
                f"px; sides that do: {', '.join(map(str, fitting))} px"
            )


def _initialise(model: Beit) -> None:
    """Redraws what timm draws without the cut-off; norms, gammas and tables start as there."""
    weights: list[Tensor] = [model.cls_token]
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weights.append(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for weight in weights:
        nn.init.trunc_normal_(weight, std=_INIT_STD, a=-_INIT_STD, b=_INIT_STD)
    model.fix_init_weight()  # divides attn.proj and mlp.fc2 of block i by sqrt(2 i)


def _set_positions(model: Beit) -> None:
    positions = model.pos_embed
    assert positions is not None
    rows, columns = model.patch_embed.grid_size
    positions.requires_grad_(False).zero_()[0, 1:] = sine_cosine(rows, columns, model.embed_dim)


def _initialise_as_mae(model: Beit) -> None:
    """Redraws every product as MAE's pretraining does; the class token as timm."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
