import pytest
import torch

from ssl_swin.classifier import Classifier


@pytest.mark.parametrize("img_size_px", [64, (64, 128)])
def test_classifier__mean_over_tokens_then_linear(tiny_encoder, img_size_px):
    model = Classifier(tiny_encoder(img_size_px=img_size_px), num_classes=5)
    with torch.no_grad():
        model.head.bias.copy_(torch.arange(5.0))
        images = torch.randn(2, 3, *model.encoder.img_size_px)
        features, scores = model.encoder(images), model(images)
    assert scores.shape == (2, 5)
    num_tokens = features.shape[2] * features.shape[3]
    for image in range(2):
        pooled = features[image].sum(dim=(1, 2)) / num_tokens
        for label in range(5):
            expected = (model.head.weight[label] * pooled).sum() + label
            assert scores[image, label].item() == pytest.approx(expected.item(), abs=1e-5)


def test_classifier__fresh_head(tiny_encoder):
    torch.manual_seed(0)
    head = Classifier(tiny_encoder(), num_classes=500).head
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.02)  # of 32,000 draws
    assert head.weight.mean().abs() < 5e-4
    assert (head.bias == 0).all()
