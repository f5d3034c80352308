"""The contract of an encoder: what turns images into feature maps, whichever family it is of.

A new family is one module beside this one: a subclass that declares what is asked for here.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ssl_swin.encoders.kernels import CompileMode, HasKernels, Kernels
from ssl_swin.encoders.sizes import Size, Window
from ssl_swin.errors import UserError


class Encoder(nn.Module, HasKernels):
    """A network split where masked image modeling needs it: `embed`, then `encode`.

    Class attributes say what is true of a family, instance attributes what is true of one network.

    Attributes:
        family: Short name of the family, as in the tags of a model card.
        title: Name of the network for a reader.
        architectures: Names of the timm models whose arguments `rebuild` takes.
        head_prefix: timm's name of a classifier's last layer.
        num_class_token_rows: Rows at the end of a position-bias table that belong to a class token,
            and so to no offset between tokens.
        undecayed: Pattern of the dotted names of multi-dimensional parameters that the recipes mean
            to spare from weight decay.
        decayed_by_accident: By phase ("pretraining", "finetuning"), the pattern of those names
            that the published runs decayed nevertheless.
        timm_names: Patterns of the names under which timm publishes weights of the family.
        timm_import: Module whose import lets timm know the architectures.
        first_conv: timm's name of the layer that sees the image.
        fixed_input_size: Whether the network is built for one image size, which timm then takes as
            an argument, `img_size`. Otherwise `model_args` alone hold it.
        required_args: Names of `model_args` without which timm's own defaults would count.
        landmark: Name of a tensor that every network of the family has, and nothing else.
        state_patterns: Names of its tensors, as in `ssl_swin.weights.formats.key_maps`. None where
            a module of formats has them.
        overlapping_patches: Whether a token sees pixels beyond its own patch, so that visible
            tokens see masked pixels, unless these are painted over before.
        positions: Name of the positions at its input, if it has such, and how many of them at the
            beginning are of no patch, as a class token's.
        takes_any_size: Whether `forward_any_size` and `maps_any_size` are offered.
        last_norm: Pattern of timm's names of what comes after the last stage, and before a head.
        init_bound: Weights of tokens are drawn from N(0, 0.02^2), cut off at plus or minus this.
        head_init_scale: Factor on the initial weights of a classifier's head.
        architecture: Name of the timm model that `model_args` vary, one of `architectures`.
        model: The timm module that owns every weight.
        model_args: Keyword arguments that rebuild it through `timm.create_model(architecture)`.
        in_chans: Number of image channels.
        img_size_px: (height, width) of the images in pixels.
        patch_size_px: Image pixels per token where the mask token enters.
        stride: Image pixels per token of the last map.
        mask_patch_size_px: Side of a mask patch that suits the encoder: no map mixes two of them.
        embed_dim: Width of the tokens where the mask token enters.
        num_features: Width of the last map.
        stage_dims: Width of each map that `stages` returns.
        depths: Number of blocks of each stage.
        compile_mode: What `compile_blocks` compiles with.
    """

    family: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    head_prefix: ClassVar[str]
    num_class_token_rows: ClassVar[int] = 0
    undecayed: ClassVar[str]
    decayed_by_accident: ClassVar[Mapping[str, str]] = {}
    timm_names: ClassVar[tuple[str, ...]] = ()
    timm_import: ClassVar[str] = "timm"
    first_conv: ClassVar[str] = "patch_embed.proj"
    fixed_input_size: ClassVar[bool] = True
    required_args: ClassVar[frozenset[str]] = frozenset()
    landmark: ClassVar[str] = "patch_embed.proj.weight"
    state_patterns: ClassVar[tuple[str, ...]] = ()
    overlapping_patches: ClassVar[bool] = False
    positions: ClassVar[tuple[str, int] | None] = None
    takes_any_size: ClassVar[bool] = False
    last_norm: ClassVar[str] = r"norm\."
    init_bound: ClassVar[float]
    head_init_scale: ClassVar[float]

    title: str
    architecture: str
    model: Any
    model_args: dict[str, Any]
    in_chans: int
    img_size_px: Size
    patch_size_px: int
    stride: int
    mask_patch_size_px: int
    embed_dim: int
    num_features: int
    stage_dims: tuple[int, ...]
    depths: tuple[int, ...]
    compile_mode: CompileMode = "default"

    @classmethod
    @abstractmethod
    def rebuild(cls, architecture: str, model_args: Mapping[str, Any], **training: Any) -> Self:
        """Build an encoder with random weights from what another one says of itself.

        Args:
            architecture: One of `architectures`.
            model_args: The other encoder's `model_args`.
            **training: `drop_path_rate` and `grad_checkpointing` of the training to come.

        Raises:
            KeyError: If an argument is missing.
            UserError: If the arguments contradict each other.
        """

    @classmethod
    def of_timm(cls, model: Any) -> "Encoder | None":
        """Return an encoder for a model of timm, with fresh weights; None if it is of no such kind.

        Args:
            model: Any model of timm.

        Raises:
            UserError: If it is a variant that the family does not cover.
        """
        return None

    @classmethod
    def of_tensors(
        cls, state: Mapping[str, Tensor], img_size_px: Size | None, window_size: int | None
    ) -> "Encoder":
        """Return an encoder for weights that nothing but their shapes describes.

        Args:
            state: Tensors by the names of `model`.
            img_size_px: (height, width) that a file or the user tells.
            window_size: Attention window that a file or the user tells, in tokens.

        Raises:
            UserError: If they do not tell all that it takes.
        """
        raise UserError(
            f"nothing in it tells the arguments of {cls.architectures[0]}: it must lie beside its "
            "config.json"
        )

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, C, H, W) into patch tokens (B, H/p, W/p, embed_dim)."""

    @abstractmethod
    def encode(self, tokens: Tensor) -> Tensor:
        """Turn patch tokens into the last map (B, num_features, H/stride, W/stride)."""

    @abstractmethod
    def stages(self, images: Tensor) -> list[Tensor]:
        """Return one map (B, C_i, H_i, W_i) per stage; the last one is that of `encode`."""

    @abstractmethod
    def pool(self, features: Tensor) -> Tensor:
        """Turn the last map into the vector (B, num_features) that a classifier's head sees."""

    @abstractmethod
    def layer_id(self, name: str) -> int:
        """Return the layer of a parameter for layer-wise learning rates, 0 at the input.

        The last layer, `last_layer`, is that of the head.

        Args:
            name: Dotted name of the parameter, with any prefix.
        """

    @abstractmethod
    def bias_windows(self) -> tuple[Window, ...]:
        """Return the window, in tokens, that each stage's position bias is for."""

    @abstractmethod
    def resized_args(self, size: Size, window_size: int | None) -> dict[str, Any]:
        """Return `model_args` of this encoder for another image size or window.

        Args:
            size: (height, width) in pixels.
            window_size: Attention window in tokens; None lets the encoder choose.

        Raises:
            UserError: If the encoder cannot take the size or the window.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return its shape in one phrase, as "width 96, depths (2, 2, 6, 2), patch 4 px"."""

    @abstractmethod
    def compile_blocks(self, *any_sizes: Size) -> None:
        """Compile what its blocks compute, without a change of names or weights.

        Args:
            any_sizes: Heights and widths of images in px that come again and again where images
                have any size; others may not be worth compiling for.
        """

    def use_kernels(self, kernels: Kernels) -> None:
        """See `HasKernels.use_kernels`; comes before `compile_blocks`."""
        self.compile_mode = kernels.compile_mode

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse batches that it cannot be trained with; by default it takes all.

        Args:
            batch_size: Images per device and step.

        Raises:
            UserError: If it cannot take them.
        """

    def blocks(self) -> Sequence[nn.Module]:
        """Return the modules that hold most of the weights and are called one after the other.

        Where weights are divided over devices, each of these is gathered by itself while it is
        computed. By default there are none, and all weights are gathered at once.
        """
        return ()

    def forward(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, C, H, W) into the last map."""
        return self.encode(self.embed(images))

    def forward_any_size(self, images: Tensor) -> Tensor:
        """Turn normalised images (B, C, h, w) of another size into the last map, sides rounded up.

        Raises:
            UserError: If it takes images of its own size alone.
        """
        raise UserError(
            f"a {self.title} takes images of its own size alone, got {tuple(images.shape[2:])} px"
        )

    def maps_any_size(self, images: Tensor) -> list[Tensor]:
        """Turn normalised images (B, C, h, w) of any size into a map (B, C_i, h_i, w_i) per stage.

        No norm ends them: dense tasks bring one for each map.

        Raises:
            UserError: If it takes images of its own size alone.
        """
        raise UserError(
            f"segmentation and detection need maps of images of any size, which a {self.title} "
            "does not make: take a Swin, a ResNet or a ConvNeXt"
        )

    def for_finetuning(self) -> "Encoder":
        """Return the encoder that fine-tuning trains, with these weights: here this very one."""
        return self

    @property
    def kind(self) -> str:
        """What formats of weights tell it from other encoders by."""
        return self.title

    @property
    def last_layer(self) -> int:
        """Number of the layer that the head belongs to, see `layer_id`."""
        return sum(self.depths) + 1
