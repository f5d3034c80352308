"""That nothing is left behind on the CPU, and no step waits for the GPU: traced without a GPU.

Fake tensors know their device and no values: an operation on two devices fails, and so does one
whose result has a shape that depends on values, for which a real GPU would make the host wait.
"""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_swin.encoders.kernels import use_kernels
from ssl_swin.encoders.windows.dense import dense_layouts
from ssl_swin.masking import random_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM

SIZES = {"img_size_px": (64, 128), "depths": (2, 2), "num_heads": (1, 2)}
CUDA = torch.device("cuda:0")
both_versions = pytest.mark.parametrize("version", [1, 2])


def as_fake(value, mode):
    """Puts every tensor of a nested tuple, list or dataclass on a GPU that is not there."""
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value).to(CUDA)
    if isinstance(value, list):
        return [as_fake(part, mode) for part in value]
    if isinstance(value, tuple):
        parts = (as_fake(part, mode) for part in value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if dataclasses.is_dataclass(value):
        parts = {f.name: as_fake(getattr(value, f.name), mode) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


def put_on_fake_gpu(model, mode):
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = as_fake(parameter.detach(), mode)
                module._parameters[name] = torch.nn.Parameter(fake)
        for name, buffer in module._buffers.items():
            module._buffers[name] = as_fake(buffer, mode)


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("objective", ["dense", "sparse"])
def test_forward__on_a_gpu(tiny_encoder, version, shared, objective):
    on_a_fake_gpu(tiny_encoder, version, shared=shared, objective=objective)


def on_a_fake_gpu(tiny_encoder, version, *, shared, objective, kernels=None):
    """Reconstructs images on a GPU that is not there, by these kernels if any are given."""
    encoder = tiny_encoder(version=version, **SIZES)
    mask = random_mask((8, 16), 0.6, np.random.default_rng(0), batch_size=2, shared=shared)
    model = SimMIM(encoder) if objective == "dense" else SparseSimMIM(encoder, decoder_depth=1)
    if kernels is not None:
        use_kernels(model, kernels)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    windows, layouts = encoder.windows, dense_layouts(encoder.model, (16, 32), torch.device("cpu"))
    planned = (windows.bin_visible(mask),) if objective == "sparse" else ()  # by the host, as ever
    with mode:
        encoder._layouts[(16, 32), False, CUDA] = as_fake(layouts, mode)
        windows._on_device[CUDA] = as_fake((windows._patches, windows._types), mode)
        put_on_fake_gpu(model, mode)
        images = torch.randn(2, 3, 64, 128, device=CUDA)
        with torch.autocast("cuda", torch.bfloat16):
            given = (images, as_fake(mask.contiguous(), mode), *as_fake(planned, mode))
            output = model.reconstruct(*given)
            loss = model.training_loss(*given)
            stages = encoder.stages(images)
    assert loss.device == output.loss.device == output.prediction.device == CUDA
    assert {stage.device for stage in stages} == {CUDA}


def test_dense_layouts__are_on_the_device(tiny_encoder):
    encoder = tiny_encoder(**SIZES)
    for any_size in (False, True):
        layouts = dense_layouts(encoder.model, (16, 32), torch.device("meta"), any_size=any_size)
        tensors = tensors_of((layouts.orders, layouts.stages))
        assert len(tensors) > 8
        assert {tensor.device.type for tensor in tensors} == {"meta"}


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    if dataclasses.is_dataclass(value):
        return tensors_of([getattr(value, field.name) for field in dataclasses.fields(value)])
    return []


def test_layouts__made_in_inference_mode_serve_training(tiny_encoder):
    encoder = tiny_encoder(**SIZES).train()
    images = torch.randn(1, 3, 64, 128)
    packing = encoder.windows.bin_visible(torch.zeros(1, 8, 16, dtype=torch.bool))
    fresh = tiny_encoder(**SIZES).train()
    with torch.inference_mode():
        fresh(images)
        fresh.encode_visible(images, packing)
    fresh(images).sum().backward()
    fresh.encode_visible(images, packing).sum().backward()


def test_encoder__compiled_is_copied_and_sent_to_other_processes(tiny_encoder):
    encoder = tiny_encoder(**SIZES)
    encoder.compile_blocks()
    images = torch.randn(1, 3, 64, 128)
    with torch.no_grad():
        expected = encoder(images)
        for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
            torch.testing.assert_close(other(images), expected)


def test_windows__a_loaders_process_gets_no_copies_on_devices(tiny_encoder):
    windows = tiny_encoder(**SIZES).windows
    windows._on_device[CUDA] = "tables on a GPU"
    assert pickle.loads(pickle.dumps(windows))._on_device == {}
