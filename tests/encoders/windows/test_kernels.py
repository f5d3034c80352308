import torch
import torch.nn.functional as F

from ssl_swin.encoders.windows.kernels import gelu_linear


def inputs(dtype=torch.double):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 4), (5, 4), (5,))
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [tensor.requires_grad_() for tensor in tensors]


def test_gelu_linear__value_and_gradients():
    hidden, weight, bias = inputs()
    torch.testing.assert_close(
        gelu_linear(hidden, weight, bias), F.linear(F.gelu(hidden), weight, bias)
    )
    assert torch.autograd.gradcheck(gelu_linear, (hidden, weight, bias))


def test_gelu_linear__keeps_the_hidden_layer_and_the_weight_alone():
    kept = []
    hidden, weight, bias = inputs()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gelu_linear(hidden, weight, bias)
    assert {tensor.data_ptr() for tensor in kept} == {hidden.data_ptr(), weight.data_ptr()}


def test_gelu_linear__weights_keep_their_dtype_under_autocast():
    hidden, weight, bias = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        product = gelu_linear(hidden.bfloat16(), weight, bias)
    assert product.dtype == torch.bfloat16
    product.sum().backward()
    assert weight.grad.dtype == bias.grad.dtype == torch.float32
