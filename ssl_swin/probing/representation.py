"""What features are like, without labels: their rank, their spread, their likeness to others."""

import torch
from torch import Tensor
from torch.nn import functional

LEAST_SHARE = 1e-7  # added to each share of the spectrum, as in the reference


def rankme(features: Tensor) -> float:
    """Return the effective rank of features, from 1 to min(N, C).

    The exponential of the entropy of the singular values as shares of their sum; not centred. A
    fall while training goes on is a dimensional collapse. Compare values of as many images only.

    Reference: RankMe (arXiv:2210.02885), equation 2.

    Args:
        features: float (N, C).
    """
    values = _double(features)
    gram = values @ values.T if values.shape[0] < values.shape[1] else values.T @ values
    spectrum = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = spectrum.sum()
    if not total > 0:
        return 1.0
    shares = spectrum / total + LEAST_SHARE
    return float(torch.exp(-(shares * shares.log()).sum()))


def spread(features: Tensor) -> float:
    """Return how far apart features are: about 1 where images are told apart, 0 where not.

    The deviation over the images of each channel of the features, these scaled to length 1, times
    the root of the number of channels, averaged over channels: what an objective logs as
    `rep/std_mean`.

    Args:
        features: float (N, C), N at least 2.
    """
    unit = functional.normalize(_double(features), dim=1)
    return float(unit.std(dim=0).mean() * unit.shape[1] ** 0.5)


def linear_cka(features: Tensor, others: Tensor) -> float:
    """Return how alike two networks see the same images, from 0 to 1, which is up to a rotation.

    With few images for the number of channels it is larger than it should be.

    Reference: arXiv:1905.00414, equation 3 with linear kernels.

    Args:
        features: float (N, C).
        others: float (N, D), of the same images in the same order.
    """
    first, second = (_double(each) - _double(each).mean(dim=0) for each in (features, others))
    if len(first) < max(first.shape[1], second.shape[1]):
        kernels = first @ first.T, second @ second.T
        common = (kernels[0] * kernels[1]).sum()
        sizes = kernels[0].norm() * kernels[1].norm()
    else:
        common = (first.T @ second).square().sum()
        sizes = (first.T @ first).norm() * (second.T @ second).norm()
    return float(common / sizes) if sizes > 0 else 0.0


def _double(features: Tensor) -> Tensor:
    return features.cpu().double()
