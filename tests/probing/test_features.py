import pytest
import torch
from torch import Tensor, nn

from ssl_swin.errors import UserError
from ssl_swin.probing.features import Tap, extract_features, pool_map, pooled_batches


class TwoStages(nn.Module):
    """Stage 1 doubles the image, stage 2 convolves it; dropout shows a forgotten eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, kernel_size=2, stride=2)
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def stages(self, images: Tensor) -> list[Tensor]:
        self.calls += 1
        return [2 * images, self.dropout(self.conv(images))]


def labelled_images(labels: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), 3, 4, 4, generator=generator), torch.tensor(labels)


def test_pool_map__by_hand():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[-1.0, -2.0], [-3.0, -6.0]]]])
    assert pool_map(features, "mean").tolist() == [[3.0, -3.0]]
    assert pool_map(features, "max").tolist() == [[6.0, -1.0]]


def test_pool_map__unknown():
    with pytest.raises(UserError, match="unknown pooling 'median': use 'mean' or 'max'"):
        pool_map(torch.zeros(1, 1, 1, 1), "median")


def test_extract_features__pools_every_asked_stage_in_one_pass():
    encoder = TwoStages()
    batches = [labelled_images([4, 2], seed=1), labelled_images([0], seed=2)]
    found = extract_features(encoder, batches, stages=[2, 1], pooling="mean", device="cpu")

    images = torch.cat([images for images, _ in batches])
    assert encoder.calls == 2
    assert sorted(found) == [1, 2]
    assert found[1].labels.tolist() == found[2].labels.tolist() == [4, 2, 0]
    torch.testing.assert_close(found[1].features, 2 * images.mean(dim=(2, 3)))
    torch.testing.assert_close(found[2].features, encoder.conv(images).mean(dim=(2, 3)).detach())


def test_pooled_batches__takes_stages_and_poolings_of_one_pass():
    encoder = TwoStages()
    batches = [labelled_images([4, 2], seed=1), labelled_images([0], seed=2)]
    taps = [Tap(1, "mean"), Tap(1, "max"), Tap(2, "max")]
    first, second = pooled_batches(encoder, batches, taps=taps, device="cpu")

    assert encoder.calls == 2
    assert (first.labels.tolist(), second.labels.tolist()) == ([4, 2], [0])
    images = batches[0][0]
    torch.testing.assert_close(first.features[Tap(1, "mean")], 2 * images.mean(dim=(2, 3)))
    torch.testing.assert_close(first.features[Tap(1, "max")], 2 * images.amax(dim=(2, 3)))
    convolved = encoder.conv(images).amax(dim=(2, 3)).detach()
    torch.testing.assert_close(first.features[Tap(2, "max")], convolved)


def test_pooled_batches__leaves_no_mode_behind_between_batches():
    encoder = TwoStages().train()
    for _ in pooled_batches(encoder, [labelled_images([0])], taps=[Tap(2, "mean")], device="cpu"):
        assert encoder.dropout.training
        assert torch.is_grad_enabled()


def test_extract_features__leaves_out_unlabelled_samples():
    images, labels = labelled_images([-1, 7, -1, 3])
    batches = [labelled_images([-1, -1]), (images, labels)]
    found = extract_features(TwoStages(), batches, stages=[1], pooling="max", device="cpu")
    assert found[1].labels.tolist() == [7, 3]
    torch.testing.assert_close(found[1].features, 2 * images[[1, 3]].amax(dim=(2, 3)))


def test_extract_features__leaves_the_encoder_as_it_was():
    encoder = TwoStages().train()
    encoder.conv.eval()  # a frozen part must stay frozen
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    extract_features(encoder, [labelled_images([0])], stages=[2], pooling="mean", device="cpu")

    assert [m.training for m in (encoder, encoder.conv, encoder.dropout)] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_extract_features__restores_training_mode_after_an_error():
    encoder = TwoStages().train()
    with pytest.raises(UserError):
        extract_features(encoder, [labelled_images([0])], stages=[3], pooling="mean", device="cpu")
    assert encoder.training and encoder.dropout.training


def test_extract_features__pools_in_float32_under_autocast():
    images, labels = labelled_images([0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = extract_features(
            TwoStages(), [(images, labels)], stages=[2], pooling="mean", device="cpu"
        )
    assert found[2].features.dtype == torch.float32
    as_bfloat16 = found[2].features.bfloat16().float()
    assert not torch.equal(found[2].features, as_bfloat16)  # a bfloat16 mean would be equal


def test_extract_features__may_be_trained_on():
    encoder = TwoStages()
    found = extract_features(
        encoder, [labelled_images([0, 1])], stages=[1], pooling="mean", device="cpu"
    )
    assert not found[1].features.is_inference() and not found[1].labels.is_inference()


@pytest.mark.parametrize(
    ("stages", "labels", "message"),
    [
        ([3], [0], "there is no stage 3: this encoder's stages are 1 to 2"),
        ([0], [0], "there is no stage 0"),
        ([], [0], "no stage to take features from"),
        ([1], [-1, -1], "no labelled sample"),
    ],
)
def test_extract_features__errors(stages, labels, message):
    with pytest.raises(UserError, match=message):
        batches = [labelled_images(labels)]
        extract_features(TwoStages(), batches, stages=stages, pooling="mean", device="cpu")
