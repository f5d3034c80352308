"""iBOT: masked self-distillation of whole images and of their masked cells, with pixels if wanted.

References: iBOT (arXiv:2111.07832); EsViT (arXiv:2106.09785) for the region term; SMIT
(arXiv:2205.10342) for pixels beside both. Losses are equal to the original implementations to
rounding, see tests/objectives/test_self_distillation.py. The sparse student is our own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_swin.arguments import (
    Above0,
    Count,
    Fraction,
    InnerFraction,
    InnerFractionRange,
    NonNegative,
    PortionRange,
    Positive,
    Several,
    checked,
)
from ssl_swin.data.samples import Augmentation, PixelFormat
from ssl_swin.data.views import ColorViews
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.figure import DifferenceColumn, Figure, ImageColumn
from ssl_swin.masking import mask_grid, num_masked_patches
from ssl_swin.objectives.base import Collate, Normalize, Objective, Output, Progress
from ssl_swin.objectives.cells import MaskedCells, check_mask_patch, patchify, unpatchify
from ssl_swin.objectives.collapse import unit_spread
from ssl_swin.objectives.ibot_settings import Temperature, Weights, check_sparse
from ssl_swin.objectives.local_views import LocalViews, SeenLocally, see_local
from ssl_swin.objectives.masked_students import DenseStudent, Seen, SparseStudent, Student
from ssl_swin.objectives.masked_views import (
    MaskDraw,
    MaskedViewsBatch,
    MaskedViewsTransform,
    MaskShape,
    collate_masked_views,
)
from ssl_swin.objectives.momentum import cosine_momentum
from ssl_swin.objectives.momentum_teacher import MomentumTeacher, Taught
from ssl_swin.objectives.projection_head import ProjectionHead
from ssl_swin.objectives.self_distillation import cell_loss, entropy, image_loss, region_loss
from ssl_swin.objectives.view_batches import ViewsTransform
from ssl_swin.plurals import counted

NUM_VIEWS = 2


class IBOT(Objective):
    """A student that sees masked views is to see what its moving average sees of whole ones.

    The loss is a weighted sum: of whole images, whose target is the other view; of masked cells,
    whose target is the same cell; of all cells, whose target is the most similar one of the other
    view; and of the pixels of masked cells.

    Differs from the reference: momentum and temperatures change with every step also after a
    resume, and, unless asked for, masks are drawn patch by patch and there are no local views.
    These have no masks, and evaluations have none of them.

    Attributes:
        is_sparse: Whether the student sees visible patches alone.
        mask_draw: How many mask patches of a view are masked.
        local_views: What the student sees besides.
    """

    @checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        colors: ColorViews,
        sparse: bool = False,
        mask_ratio: InnerFraction | InnerFractionRange = (0.1, 0.5),
        mask_probability: Fraction = 0.5,
        mask_shape: MaskShape = "patches",
        mask_from_epoch: NonNegative = 0,
        mask_patch_size_px: Positive | None = None,
        image_weight: NonNegative = 1.0,
        cell_weight: NonNegative = 1.0,
        region_weight: NonNegative = 0.0,
        pixel_weight: Fraction = 0.0,
        local_views: Count = 0,
        local_size_px: Positive = 96,
        local_crop_scale: PortionRange = (0.05, 0.25),
        teacher_momentum: Fraction = 0.996,
        teacher_temperature: Above0 = 0.07,
        teacher_temperature_start: Above0 = 0.04,
        temperature_warmup_epochs: NonNegative = 30,
        student_temperature: Above0 = 0.1,
        centre_momentum: Fraction = 0.9,
        separate_cell_head: bool = False,
        num_prototypes: Several = 8192,
        unit_prototypes: bool = False,
        freeze_prototypes_epochs: NonNegative = 1,
        hidden_dim: Positive = 2048,
        bottleneck_dim: Positive = 256,
        decoder_depth: Positive = 1,
        decoder_dim: Positive | None = None,
        decoder_fixed_positions: bool = False,
    ) -> None:
        """Put an encoder beside its teacher.

        Args:
            encoder: The encoder to train.
            colors: Changes of colours, by view.
            sparse: Whether the encoder sees visible patches alone, and a decoder predicts masked
                cells; every view then has to mask as many.
            mask_ratio: Share of mask patches that is masked in a masked view, in (0, 1), or the
                lowest and the highest, between which it is drawn; the count is rounded up.
            mask_probability: Probability that a view is masked at all.
            mask_shape: "patches" masks mask patches independently, an exact count; "blocks" masks
                rectangles of them as the reference does, at most as many.
            mask_from_epoch: Epochs of training before masks begin. Evaluations always mask.
            mask_patch_size_px: Side of a mask patch, a multiple of the encoder's total stride; None
                takes the one that suits the encoder.
            image_weight: Weight of the loss of whole images.
            cell_weight: Weight of the loss of masked cells.
            region_weight: Weight of EsViT's loss of all cells against the other view.
            pixel_weight: Weight of the mean absolute error of the pixels of masked cells, in
                [0, 1]; 0 predicts none.
            local_views: Number of smaller views of each image, which the student alone sees, and
                which count as images, and their cells for the region term. The encoder must take
                images of any size, as Swin and convolutional ones do.
            local_size_px: Their side, below that of the encoder's images.
            local_crop_scale: Smallest and largest area that they show, over the image's.
            teacher_momentum: What remains of the teacher in the first step; rises to 1 over the run
                in half a cosine. Small batches want more, as 0.9995 at 256 images.
            teacher_temperature: What the teacher's scores are divided by.
            teacher_temperature_start: The same in the first step.
            temperature_warmup_epochs: Epochs from one to the other; for cells from
                `mask_from_epoch` on.
            student_temperature: What the student's scores are divided by.
            centre_momentum: What remains of the centre of the teacher's scores at each batch.
            separate_cell_head: Whether cells have a head of their own, as EsViT's; else they share
                that of images, as iBOT's.
            num_prototypes: Directions that features are compared with, at least 2.
            unit_prototypes: Whether prototypes keep the length 1. Training is steadier then, and
                trained lengths learn more, say the authors.
            freeze_prototypes_epochs: Epochs in which the prototypes do not change.
            hidden_dim: Width of the hidden layers of the head.
            bottleneck_dim: Width of what is compared with prototypes.
            decoder_depth: Transformer blocks of the sparse student's decoder.
            decoder_dim: Their width, a multiple of 32; None is half the encoder's last, rounded up.
            decoder_fixed_positions: See `PatchDecoder`.

        Raises:
            UserError: If the settings contradict each other or the encoder.
        """
        super().__init__(encoder)
        self.is_sparse = sparse
        self.title = "sparse iBOT" if sparse else "iBOT"
        self.tags = ("ibot", "self-supervised", *(("sparse",) if sparse else ()))
        self.colors = colors
        self.mask_patch_size_px = mask_patch_size_px or encoder.mask_patch_size_px
        self.mask_draw = self._mask_draw(mask_ratio, mask_probability, mask_shape)
        self.mask_from_epoch = mask_from_epoch
        self.weights = Weights(image_weight, cell_weight, region_weight, pixel_weight)
        self.weights.check(self.mask_draw)
        smallest, largest = local_crop_scale
        self.local_views = LocalViews(local_views, local_size_px, (smallest, largest))
        self.local_views.check(encoder)
        self.teacher_momentum = teacher_momentum
        self.teacher_temperature = Temperature(
            teacher_temperature_start, teacher_temperature, temperature_warmup_epochs
        )
        self.student_temperature = student_temperature
        self.freeze_prototypes_epochs = freeze_prototypes_epochs
        self._plan: Callable[[Tensor], Any] | None = None
        self.student: Student
        if sparse:
            visible = check_sparse(encoder, self.mask_draw, mask_from_epoch, region_weight)
            self._plan = visible.visible_planner()
            self.student = SparseStudent(
                visible,
                depth=decoder_depth,
                dim=decoder_dim,
                fixed_positions=decoder_fixed_positions,
                predicts_pixels=pixel_weight > 0,
            )
        else:
            self.student = DenseStudent(encoder, predicts_pixels=pixel_weight > 0)
        make_head = partial(
            ProjectionHead,
            encoder.num_features,
            hidden_dim=hidden_dim,
            bottleneck_dim=bottleneck_dim,
            num_prototypes=num_prototypes,
            unit_prototypes=unit_prototypes,
        )
        self.head = make_head()
        self.cell_head = make_head() if separate_cell_head else None
        self.teacher = MomentumTeacher(
            encoder, self.head, self.cell_head, make_head, centre_momentum=centre_momentum
        )
        self._progress = Progress(step=0, num_steps=1, steps_per_epoch=1)

    def make_transform(
        self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int
    ) -> MaskedViewsTransform:
        """See `Objective.make_transform`."""
        self.colors.check(pixels, ("view 1", "view 2", "local views"), "objective.colors")
        crops = [augmentation] * NUM_VIEWS + self.local_views.crops(augmentation)
        views = ViewsTransform(crops, self.colors, pixels, seed=seed)
        return MaskedViewsTransform(views, self.mask_draw, num_masked=NUM_VIEWS)

    def make_collate(self) -> Collate:
        """Lists what is masked of every batch, and plans what a sparse student computes of it."""
        return partial(collate_masked_views, grid=self._grid, plan=self._plan)

    def check_batch_size(self, batch_size: int, global_batch_size: int) -> None:
        """See `Objective.check_batch_size`."""
        if batch_size < 2:
            raise UserError(
                "batch_size=1 has no other image that a teacher could tell one from: give 2 or more"
            )

    def forward(self, batch: MaskedViewsBatch, normalize: Normalize) -> Output:
        """See `Objective.forward`; in training, the centres then follow."""
        if self.training and self._epoch < self.mask_from_epoch:
            batch = batch.unmasked()
        images = _views(batch, normalize)
        taught = self.teacher(images, batch.cells)
        local = see_local(self.encoder, batch.local, normalize)
        terms, logs = self._terms(images, batch, taught, local)
        if self.training:
            self.teacher.update_centres(taught)
        total = sum(
            (
                weight * terms[name]
                for name, weight in self.weights._asdict().items()
                if name in terms
            ),
            start=images.new_zeros(()),
        )
        logs |= {f"{name}_loss": term.detach() for name, term in terms.items()}
        return Output(total, logs)

    def before_step(self, progress: Progress) -> None:
        """See `Objective.before_step`."""
        self._progress = progress

    def after_backward(self) -> None:
        """Keep prototypes as they are in the first epochs."""
        if self._epoch < self.freeze_prototypes_epochs:
            for head in self._heads:
                head.freeze_prototypes()

    def after_step(self, step: int) -> None:
        """Let the teacher follow."""
        momentum = self.momentum_at((step - 1) / self._progress.num_steps)
        self.teacher.follow(self.encoder, self._heads, momentum)

    def momentum_at(self, share: float) -> float:
        """Return the teacher's momentum where a share of the run is done."""
        return cosine_momentum(self.teacher_momentum, min(1.0, share))

    def undecayed(self) -> frozenset[str]:
        """See `Objective.undecayed`."""
        return frozenset(f"student.{name}" for name in self.student.undecayed)

    def preview(self, batch: MaskedViewsBatch, normalize: Normalize) -> Figure:
        """The two views, and what the masks leave of them; a local view, if there are any."""
        views = _views(batch, normalize).chunk(NUM_VIEWS)
        masks = batch.masks.chunk(NUM_VIEWS)
        return tuple(
            ImageColumn(f"{title}view {number + 1}", view, masked=mask if title else None)
            for number, view in enumerate(views)
            for title, mask in (("", None), ("masked ", masks[number]))
        ) + tuple(
            ImageColumn("local view", F.interpolate(normalize(pixels), self.encoder.img_size_px))
            for pixels in batch.local[:1]
        )

    def figure(self, batch: MaskedViewsBatch, normalize: Normalize) -> Figure:
        """The preview; where pixels are predicted, also those of the first view."""
        preview = self.preview(batch, normalize)
        if not self.weights.pixel:
            return preview
        images = _views(batch, normalize)
        seen = self.student(self.encoder, images, batch)
        values = patchify(images.float(), self.encoder.stride)
        flat = values.flatten(0, 1).index_copy(0, batch.cells.places, seen.pixels.float())
        pasted = unpatchify(flat.view_as(values), self._grid, images.shape[1])
        first, pasted = images[: len(batch.names)], pasted[: len(batch.names)]
        return (
            *preview[:2],
            ImageColumn("prediction", pasted),
            DifferenceColumn("error", pasted, first),
            *preview[2:],
        )

    def describe(self) -> str:
        """See `Objective.describe`."""
        number = self.mask_draw.grid[0] * self.mask_draw.grid[1]
        counts = dict.fromkeys(num_masked_patches(number, share) for share in self.mask_draw.ratio)
        phrase = (
            f"{self.title}, {' to '.join(map(str, counts))} of {number} mask patches of "
            f"{self.mask_patch_size_px} px masked"
        )
        if self.mask_draw.shape == "blocks":
            phrase += " in blocks"
        if not self.is_sparse:
            phrase += f" in {100 * self.mask_draw.probability:g} % of the views"
        if number_local := self.local_views.number:
            phrase += f", {counted(number_local, 'local view')} of {self.local_views.size_px} px"
        named = self.weights._asdict().items()
        weights = ", ".join(f"{name} {weight:g}" for name, weight in named if weight)
        return f"{phrase}, {len(self.head.prototypes)} prototypes, weights: {weights}"

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of the last map."""
        height_px, width_px = self.encoder.img_size_px
        return height_px // self.encoder.stride, width_px // self.encoder.stride

    @property
    def _heads(self) -> list[ProjectionHead]:
        """The head of images, and that of cells if it is another."""
        return [self.head] if self.cell_head is None else [self.head, self.cell_head]

    @property
    def _epoch(self) -> float:
        return self._progress.step / self._progress.steps_per_epoch

    def _mask_draw(
        self, ratio: float | Sequence[float], probability: float, shape: MaskShape
    ) -> MaskDraw:
        encoder, side_px = self.encoder, self.mask_patch_size_px
        grid = mask_grid(encoder.img_size_px, side_px, patch_size_px=encoder.patch_size_px)
        check_mask_patch(side_px, encoder.stride, "ibot")
        lowest, highest = (ratio, ratio) if isinstance(ratio, float | int) else ratio
        num_masked_patches(grid[0] * grid[1], highest)  # refuses to mask all
        return MaskDraw(grid, (float(lowest), float(highest)), probability, shape)

    def _terms(
        self, images: Tensor, batch: MaskedViewsBatch, taught: Taught, local: SeenLocally
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the terms of the loss by name, and what is logged besides."""
        seen = self.student(self.encoder, images, batch)
        of_images = self.teacher.image_targets(taught, self._temperature())
        cold = self.student_temperature
        scores = self.head(torch.cat([seen.images, *local.pooled]))
        terms = {
            "image": image_loss(scores.split(len(batch.names)), of_images.chunk(NUM_VIEWS), cold),
            "cell": cell_loss(
                self._heads[-1](seen.cells),
                self.teacher.cell_targets(taught, self._temperature(self.mask_from_epoch)),
                batch.cells.weights,
                len(images),
                cold,
            ),
        }
        if self.weights.region:
            terms["region"] = self._region_loss(seen, taught, local)
        if self.weights.pixel:
            terms["pixel"] = self._pixel_loss(seen, images, batch.cells)
        return terms, {
            "target_entropy": entropy(of_images),
            "mean_target_entropy": entropy(of_images.mean(0)),
            "rep/std_mean": unit_spread(taught.pooled[: len(batch.names)]),
        }

    def _temperature(self, from_epoch: float = 0.0) -> float:
        """Return the teacher's temperature; the last one in evaluations, whatever the step."""
        if not self.training:
            return self.teacher_temperature.end
        return self.teacher_temperature.at(self._progress, from_epoch=from_epoch)

    def _region_loss(self, seen: Seen, taught: Taught, local: SeenLocally) -> Tensor:
        assert seen.tokens is not None
        warmth = self._temperature(self.mask_from_epoch)
        of_cells = self.teacher.all_cell_targets(taught, warmth)
        tokens = [*seen.tokens.chunk(NUM_VIEWS), *local.tokens]
        return region_loss(
            [self._heads[-1](view) for view in tokens],
            tokens,
            of_cells.chunk(NUM_VIEWS),
            taught.features.chunk(NUM_VIEWS),
            self.student_temperature,
        )

    def _pixel_loss(self, seen: Seen, images: Tensor, masked: MaskedCells) -> Tensor:
        """Mean absolute error, over the masked cells of a view and then over views."""
        assert seen.pixels is not None
        values = patchify(images.float(), self.encoder.stride).flatten(0, 1)[masked.places]
        error = (values - seen.pixels.float()).abs().mean(-1)
        return (error * masked.weights).sum() / len(images)


def _views(batch: MaskedViewsBatch, normalize: Normalize) -> Tensor:
    """Return all views (V * B, C, H, W), the first ones first."""
    return torch.cat([normalize(pixels) for pixels in (batch.pixels, *batch.others)])
