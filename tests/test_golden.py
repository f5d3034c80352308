"""The numbers of the original implementation, see tests/golden/README.md for where they come from.

The small models are part of the project. The large ones, checkpoint files as the original's
training script writes them, are read from `../shared/golden`, or the folder that SSL_SWIN_GOLDEN
names. `pytest tests/test_golden.py -rP` prints the largest differences.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from official_names import TINY_MODELS, save_official, tiny_state, to_official_simmim_name
from torch import Tensor

from ssl_swin.objectives.simmim import Reconstruction, SimMIM
from ssl_swin.weights.formats.importing import import_weights

LARGE = Path(__file__).parents[2] / "shared" / "golden"

HALF_PRECISION = 2.0**-11  # relative rounding of the large models' stored reconstruction


class Golden(NamedTuple):
    model: SimMIM
    arrays: dict[str, np.ndarray]  # images, mask_units, features, reconstruction, loss
    grad_norms: dict[str, float]  # by the original's names


class Case(NamedTuple):
    load: Callable[[Path], Golden]  # from a folder to write to
    loss_rtol: float
    reconstruction_rtol: float


class Run(NamedTuple):
    case: Case
    golden: Golden
    output: Reconstruction


def load_model(path: Path, normalize_target_window_px: int | None, **sizes: int) -> SimMIM:
    """Imports a checkpoint as users do, and gives it the target of its pretraining."""
    imported, _ = import_weights(path, **sizes)
    model = SimMIM(imported.encoder, normalize_target_window_px=normalize_target_window_px)
    model.load_state_dict(imported.simmim.state_dict())
    return model


def load_tiny(name: str, normalize_target_window_px: int | None, folder: Path) -> Golden:
    arrays = dict(np.load(TINY_MODELS / f"{name}.npz"))
    grad_norms = {
        key.removeprefix("grad_norm/"): float(value)
        for key, value in arrays.items()
        if key.startswith("grad_norm/")
    }
    path = save_official(folder / f"{name}.pth", tiny_state(int(name[-1])))
    model = load_model(path, normalize_target_window_px, img_size_px=64, window_size=4)
    return Golden(model, arrays, grad_norms)


def load_large(name: str, normalize_target_window_px: int | None) -> Golden:
    folder = Path(os.environ.get("SSL_SWIN_GOLDEN", LARGE))
    if not folder.is_dir():
        pytest.skip(f"{'../shared/golden' if folder == LARGE else folder} is not here")
    model = load_model(folder / f"{name}.pth", normalize_target_window_px)
    grad_norms = json.loads((folder / f"{name}.json").read_text())["grad_norms"]
    return Golden(model, dict(np.load(folder / f"{name}.npz")), grad_norms)


# V2's target is computed in double precision here, and in float32 by the original.
CASES = {
    "tiny_v1": Case(lambda folder: load_tiny("swin_v1", None, folder), 1e-6, 0.0),
    "tiny_v2": Case(lambda folder: load_tiny("swin_v2", 15, folder), 1e-4, 0.0),
    "large_v1": Case(lambda _: load_large("swin_v1_w6", None), 1e-6, HALF_PRECISION),
    "large_v2": Case(lambda _: load_large("swin_v2_w12", 47), 1e-4, HALF_PRECISION),
}


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where it is computed: in float32, without TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # of matrix products it is off by default
    yield str(request.param)
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module", params=CASES)
def run(
    request: pytest.FixtureRequest, device: str, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Loads a model and runs it forward and backward, once for all tests."""
    case = CASES[request.param]
    golden = case.load(tmp_path_factory.mktemp("golden"))
    golden.model.to(device)
    images = torch.from_numpy(golden.arrays["images"]).float()
    mask = torch.from_numpy(golden.arrays["mask_units"]).bool()
    output = golden.model.reconstruct(images.to(device), mask.to(device))
    output.loss.backward()
    return Run(case, golden, Reconstruction(*(each.detach().cpu() for each in output)))


def assert_near(actual: Tensor, expected: np.ndarray, *, rtol: float, atol: float) -> None:
    expected = torch.from_numpy(expected).float()
    print(f"largest absolute difference: {(actual - expected).abs().max().item():.2g}")
    torch.testing.assert_close(actual.detach(), expected, rtol=rtol, atol=atol)


def test_golden__loss(run: Run):
    expected = float(run.golden.arrays["loss"])
    print(f"relative difference: {abs(run.output.loss.item() / expected - 1):.2g}")
    assert run.output.loss.item() == pytest.approx(expected, rel=run.case.loss_rtol, abs=0)


def test_golden__features(run: Run):
    assert_near(run.output.features, run.golden.arrays["features"], rtol=0, atol=1e-5)


def test_golden__reconstruction(run: Run):
    assert_near(
        run.output.prediction,
        run.golden.arrays["reconstruction"],
        rtol=run.case.reconstruction_rtol,
        atol=1e-5,
    )


def test_golden__every_gradient_norm_by_the_original_name(run: Run):
    norms = {
        to_official_simmim_name(name): parameter.grad.double().norm().item()
        for name, parameter in run.golden.model.named_parameters()
    }
    assert norms.keys() == run.golden.grad_norms.keys()
    differences = (abs(norms[name] / run.golden.grad_norms[name] - 1) for name in norms)
    print(f"largest relative difference: {max(differences):.2g}")
    assert norms == pytest.approx(run.golden.grad_norms, rel=1e-4, abs=0)
