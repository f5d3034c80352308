import math

import pytest
import torch

from ssl_swin.encoders.windows.layout import WholeWindows


@pytest.mark.parametrize("scale", [math.log(100.0) - 0.5, math.log(100.0) + 3.0])
def test_v2__logit_scale_stays_below_a_hundred(tiny_encoder, timm_twin, scale):
    """Swin V2 (arXiv:2111.09883, section 3.2): tau is not below 0.01."""
    encoder = tiny_encoder(version=2).double()
    attentions = [block.attn for stage in encoder.model.layers for block in stage.blocks]
    with torch.no_grad():
        for attention in attentions:
            attention.logit_scale.fill_(scale)
        images = torch.randn(1, 3, 64, 64, dtype=torch.double)
        tokens = torch.randn(1, 16, 8, dtype=torch.double)
        actual = encoder(images)
        expected = timm_twin(encoder).forward_features(images).permute(0, 3, 1, 2)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)

        first = attentions[0]
        before = first(tokens, layout=WholeWindows(16))
        first.logit_scale.fill_(min(scale, math.log(100.0)))
        assert first(tokens, layout=WholeWindows(16)).equal(before)
        first.logit_scale.fill_(math.log(100.0) - 1.0)
        assert not torch.allclose(first(tokens, layout=WholeWindows(16)), before)


def test_v2__clamped_scale_gets_no_gradient(tiny_encoder):
    attention = tiny_encoder(version=2).model.layers[0].blocks[0].attn
    for scale, is_moved in ((math.log(100.0) - 0.5, True), (math.log(100.0) + 0.5, False)):
        with torch.no_grad():
            attention.logit_scale.fill_(scale)
        attention.logit_scale.grad = None
        attention(torch.randn(1, 16, 8), layout=WholeWindows(16)).square().sum().backward()
        assert bool(attention.logit_scale.grad.any()) is is_moved
