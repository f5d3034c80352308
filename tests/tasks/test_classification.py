import pytest
import timm
import torch

from ssl_swin.encoders.beit import BeitEncoder, beit
from ssl_swin.tasks.classification import Classifier


def vit(**changes) -> BeitEncoder:
    torch.manual_seed(0)
    return beit(img_size_px=(32, 48), embed_dim=16, depth=2, num_heads=2, **changes)


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


def test_classifier__trains_the_encoder_it_was_given(tiny_encoder):
    encoder = tiny_encoder()
    assert Classifier(encoder, num_classes=2).encoder is encoder


@pytest.mark.parametrize("final_norm", [True, False])
def test_classifier__of_a_vit_norms_the_mean_of_the_patch_tokens(final_norm):
    model = Classifier(vit(final_norm=final_norm), num_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        images = torch.randn(2, 3, 32, 48)
        tokens = model.encoder.model.forward_intermediates(images, intermediates_only=True)[-1]
        pooled = tokens.mean(dim=(2, 3))
        norm = model.encoder.model.fc_norm
        deviation = (pooled.var(dim=1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        normed = (pooled - pooled.mean(dim=1, keepdim=True)) / deviation * norm.weight + norm.bias
        expected = normed @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert not model.encoder.model_args["use_shared_rel_pos_bias"]


def test_classifier__of_a_vit_equals_timms():
    model = Classifier(vit(), num_classes=3).eval()
    arguments = model.encoder.model_args
    reference = timm.create_model(model.encoder.architecture, num_classes=3, **arguments).eval()
    head = {f"head.{name}": tensor for name, tensor in model.head.state_dict().items()}
    reference.load_state_dict(model.encoder.model.state_dict() | head)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(reference(images), model(images), rtol=1e-4, atol=1e-8)


def test_classifier__fresh_head_of_a_vit_is_a_thousandth():
    torch.manual_seed(0)
    head = Classifier(vit(), num_classes=2000).head
    assert head.weight.std().item() == pytest.approx(2e-5, rel=0.02)
    assert (head.bias == 0).all()


def test_classifier__every_parameter_of_a_vit_is_used():
    model = Classifier(vit(), num_classes=3)
    model(torch.randn(2, 3, 32, 48)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
