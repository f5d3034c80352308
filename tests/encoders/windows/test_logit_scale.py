import torch

from ssl_swin.encoders.windows import attention


def test_scores__of_v2_are_limited_as_timms_are(tiny_encoder):
    """Long runs push the scale past its limit, ln 100; random weights never get there."""
    encoder = tiny_encoder(version=2)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("logit_scale"):
                parameter.fill_(attention._LARGEST_LOGIT_SCALE + 1.5)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = encoder.model.forward_features(images).permute(0, 3, 1, 2)
        torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-4)
