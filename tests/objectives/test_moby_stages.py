"""MoBY with heads on several stages: the loss by hand, queues, targets, and what is refused."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_views import plain_views
from torch import Tensor, nn

from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resnet import resnet
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Progress
from ssl_swin.objectives.moby import MoBY
from ssl_swin.objectives.view_batches import ViewsBatch

ENCODERS = {
    "swin": lambda: swin(version=1, img_size_px=32, window_size=4, embed_dim=8, depths=(1, 2, 1),
                         num_heads=(1, 2, 2)),
    "vit": lambda: beit(img_size_px=32, patch_size_px=8, embed_dim=16, depth=5, num_heads=2),
    "resnet": lambda: resnet(img_size_px=32, block="basic", channels=(8, 8, 16, 16),
                             depths=(1, 1, 1, 1)),
}  # fmt: skip


def moby(stages: Any, encoder: str = "swin") -> MoBY:
    torch.manual_seed(0)
    sizes = {"queue_length": 8, "hidden_dim": 32, "out_dim": 16}
    return MoBY(ENCODERS[encoder](), colors=plain_views(), stages=stages, **sizes)


def as_is(pixels: Tensor) -> Tensor:
    return pixels


def batch(seed: int = 0) -> ViewsBatch:
    views = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return ViewsBatch(views[0], [views[1]], list("abcd"))


def by_hand(rows: Tensor, layers: Any) -> Tensor:
    """A head in training: two linear layers around the batch's own statistics."""
    first, norm, _, second = layers
    hidden = rows @ first.weight.t() + first.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
    return (hidden * norm.weight + norm.bias).clamp(min=0) @ second.weight.t() + second.bias


def cross_entropy(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    query, key = F.normalize(query), F.normalize(key)
    scores = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.t()], 1) / 0.2
    return (scores.logsumexp(1) - scores[:, 0]).mean()


@pytest.mark.parametrize("stages", [[2, 3], [3, 1]])
def test_loss__is_the_sum_over_stages_by_hand(stages: list[int]) -> None:
    objective, views = moby(stages).train(), batch()
    for head in (*objective.projectors, *objective.predictors, *objective.target_projectors):
        nn.init.normal_(head[1].weight, mean=1.0)  # so that no two of them are alike
        nn.init.normal_(head[1].bias)
    queues = objective.keys1.clone(), objective.keys2.clone()
    expected = torch.zeros(())
    for place, stage in enumerate(sorted(stages)):
        pooled = [objective.encoder.stages(images)[stage - 1].mean(dim=(2, 3))
                  for images in (views.pixels, views.others[0])]  # fmt: skip
        queries = [by_hand(by_hand(rows, objective.projectors[place]),
                           objective.predictors[place]) for rows in pooled]  # fmt: skip
        keys = [by_hand(rows, objective.target_projectors[place]) for rows in pooled]
        expected = expected + cross_entropy(queries[0], keys[1], queues[1][place])
        expected = expected + cross_entropy(queries[1], keys[0], queues[0][place])
    assert objective(views, as_is).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_last_stage__alone_is_what_null_is() -> None:
    plain, named = moby(None), moby([3])
    assert plain.stages == named.stages == (3,)
    assert plain(batch(), as_is).loss.equal(named(batch(), as_is).loss)
    assert plain.describe() == named.describe()


@pytest.mark.parametrize(
    ("encoder", "stages"), [("swin", [1, 2, 3]), ("vit", [1, 3]), ("resnet", [3, 4])]
)
def test_every_weight__has_a_gradient(encoder: str, stages: list[int]) -> None:
    """Else DDP would wait for one that never comes."""
    objective = moby(stages, encoder).train()
    objective(batch(), as_is).loss.backward()
    without = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert [head[0].in_features for head in objective.projectors] == [
        objective.encoder.stage_dims[stage - 1] for stage in stages
    ]


def test_queues__of_each_stage_hold_keys_of_its_own() -> None:
    objective = moby([2, 3]).train()
    before = objective.keys1.clone()
    objective(batch(), as_is)
    assert objective.keys1.shape == (2, 8, 16) and int(objective.next_key) == 4
    for place in range(2):
        new, old = objective.keys1[place, :4], before[place, :4]
        torch.testing.assert_close(new.norm(dim=1), torch.ones(4))
        assert not new.allclose(old) and objective.keys1[place, 4:].equal(before[place, 4:])
    assert not objective.keys1[0, :4].allclose(objective.keys1[1, :4])


def test_targets__of_all_stages_follow() -> None:
    objective = moby([2, 3])
    for mine, theirs in zip(objective.target_projectors, objective.projectors, strict=True):
        assert mine[0].weight.equal(theirs[0].weight)
        nn.init.zeros_(theirs[0].weight)
    start = [head[0].weight.clone() for head in objective.target_projectors]
    objective.before_step(Progress(0, num_steps=4, steps_per_epoch=2))
    objective.after_step(2)  # of 4: momentum 0.995
    for before, head in zip(start, objective.target_projectors, strict=True):
        torch.testing.assert_close(head[0].weight, 0.995 * before)


def test_logs__tell_the_stages_apart() -> None:
    objective = moby([2, 3])
    logs = objective(batch(), as_is).logs
    assert set(logs) == {"rep/std_mean", "positive_cosine", "positive_cosine/stage2", "key_std",
                         "key_std/stage2"}  # fmt: skip
    assert logs["positive_cosine"] != logs["positive_cosine/stage2"]
    assert "heads on stages 2 and 3, 8 keys" in objective.describe()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([3, 4], r"objective\.stages=\[3, 4\]: the encoder has the stages 1 to 3; .*=\[2, 3\]"),
        ([1, 2], r"objective\.stages=\[1, 2\] leaves stage 3 without a loss"),
        ([0, 3], r"stages"),
        ([], r"stages"),
        ([3, 3], r"each once"),
    ],
)
def test_stages__that_there_are_not(stages: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        moby(stages)


def test_stages__of_an_encoder_with_one() -> None:
    encoder: Encoder = beit(img_size_px=32, patch_size_px=8, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(UserError, match=r"the stages 1 to 1; give some of these, .*=\[1\]"):
        MoBY(encoder, colors=plain_views(), stages=[2])
