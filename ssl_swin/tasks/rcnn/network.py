"""R-CNN on the maps of an encoder: pyramid, proposals and heads.

Reference: Swin's detection code, `configs/_base_/models/{mask_rcnn,cascade_mask_rcnn}_swin_fpn.py`.
"""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import MinLen
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ssl_swin.arguments import Above0, Positive, checked
from ssl_swin.encoders.dense_encoder import MapNorms, check_dense, leave_out_last_norm
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.tasks.rcnn.box_heads import CASCADE_STAGES, MASK_RCNN_STAGES
from ssl_swin.tasks.rcnn.losses import BoxLoss
from ssl_swin.tasks.rcnn.objects import Found, Objects, Sizes
from ssl_swin.tasks.rcnn.proposals import Anchors, ProposalNetwork
from ssl_swin.tasks.rcnn.roi_heads import RoIHeads


class RCNN(nn.Module):
    """What detects objects on the maps of an encoder.

    Attributes:
        norms: A norm for each map.
        pyramid: Maps of one width, each with what the smaller ones know, and one that is smaller.
        proposals: Proposes boxes.
        heads: Tells what is in them.
    """

    @checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: Positive,
        with_masks: bool,
        cascade: bool,
        channels: Positive,
        head_channels: Positive,
        anchor_scale: Above0,
        anchor_ratios: Annotated[Sequence[Above0], MinLen(1)],
        num_proposals: Positive,
        proposal_loss: BoxLoss,
        box_loss: BoxLoss,
        anchors_inside: bool,
    ) -> None:
        """Build it with random weights; the last norm of the encoder is left out of training.

        Args:
            encoder: Whose maps it takes.
            num_classes: Number of classes.
            with_masks: Whether each object gets a mask.
            cascade: Whether boxes are refined in three stages.
            channels: Width of the pyramid, and of convolutions in heads.
            head_channels: Width of linear layers in box heads.
            anchor_scale: Square root of an anchor's area over the stride of its map.
            anchor_ratios: Height over width of anchors.
            num_proposals: Of an image, in training.
            proposal_loss: Of the boxes of proposals.
            box_loss: Of the boxes of heads.
            anchors_inside: Whether anchors that reach beyond an image are left out of the loss.

        Raises:
            UserError: If the encoder makes no such maps.
        """
        super().__init__()
        check_dense(encoder)
        if len(encoder.stage_dims) < 2:
            raise UserError(
                f"a pyramid joins maps of two stages or more, and this {encoder.title} has "
                f"{len(encoder.stage_dims)}"
            )
        leave_out_last_norm(encoder)
        strides = map_strides(encoder)
        self.norms = MapNorms(encoder.stage_dims)
        self.pyramid = FeaturePyramidNetwork(
            list(encoder.stage_dims), channels, extra_blocks=LastLevelMaxPool()
        )
        for layer in self.pyramid.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
        anchors = Anchors(
            (*strides, 2 * strides[-1]), scale=anchor_scale, ratios=tuple(anchor_ratios)
        )
        self.proposals = ProposalNetwork(
            channels,
            anchors,
            num_proposals=num_proposals,
            loss=proposal_loss,
            inside_only=anchors_inside,
        )
        self.heads = RoIHeads(
            channels,
            stages=CASCADE_STAGES if cascade else MASK_RCNN_STAGES,
            strides=strides,
            num_classes=num_classes,
            head_channels=head_channels,
            with_masks=with_masks,
            loss=box_loss,
        )

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the pyramid of an encoder's maps (B, C_i, h_i, w_i): (B, C, h_i, w_i), and one."""
        normed = {str(level): each for level, each in enumerate(self.norms(maps))}
        return list(self.pyramid(normed).values())

    def losses(
        self, levels: Sequence[Tensor], sizes: Sizes, truth: Sequence[Objects]
    ) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            levels: What `levels` returned.
            sizes: Of the images, without what fills them up.
            truth: What is in each image, which may be nothing.
        """
        boxes = [each.boxes for each in truth]
        proposals, losses = self.proposals(levels, sizes, boxes)
        return {**losses, **self.heads.losses(levels, sizes, proposals, truth)}

    def detect(
        self,
        levels: Sequence[Tensor],
        sizes: Sizes,
        *,
        least_score: float,
        nms_iou: float,
        most: int,
        with_masks: bool = True,
    ) -> list[Found]:
        """Detect objects in images; the module is in eval mode. See `RoIHeads.detect`."""
        proposals, _ = self.proposals(levels, sizes)
        return self.heads.detect(
            levels,
            sizes,
            proposals,
            least_score=least_score,
            nms_iou=nms_iou,
            most=most,
            with_masks=with_masks,
        )


def map_strides(encoder: Encoder) -> tuple[int, ...]:
    """Return the strides of an encoder's maps in px, from the largest map to the smallest."""
    last = len(encoder.stage_dims) - 1
    return tuple(encoder.stride >> (last - level) for level in range(last + 1))
