"""Ways to run a network, each from raw pixels to scores on a given number of threads."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.inference.subject import Subject
from ssl_swin.deploy.export import deploy, quiet
from ssl_swin.errors import UserError
from ssl_swin.inference.vectors import autocast

Run = Callable[[Tensor], Tensor]  # pixels uint8 (B, C, H, W) to scores float32 (B, K)
_CPU = torch.device("cpu")


class Way(NamedTuple):
    """One variant.

    Attributes:
        prepare: Returns what runs it, from the network, a folder for files and the threads.
        needs: Modules that it imports.
        extra: Of this package, that brings them.
        is_slow: Whether preparing takes minutes, so that it must be asked for.
        needs_compiler: Whether it calls a C++ compiler.
    """

    prepare: Callable[[Subject, Path, int], Run]
    needs: tuple[str, ...] = ()
    extra: str = ""
    is_slow: bool = False
    needs_compiler: bool = False


def prepared(name: str, subject: Subject, folder: Path, threads: int) -> Run | str:
    """Prepare a variant.

    Args:
        name: One of `WAYS`.
        subject: What is run.
        folder: For its files.
        threads: To compute with.

    Returns:
        What runs it, or why it cannot take part.
    """
    way = WAYS[name]
    missing = [module for module in way.needs if importlib.util.find_spec(module) is None]
    if missing:
        return f"not installed: {', '.join(missing)}: pip install 'ssl_swin[{way.extra}]'"
    if way.needs_compiler and shutil.which("g++") is None:
        return "not installed: a C++ compiler, g++"
    try:
        return way.prepare(subject, folder, threads)
    except UserError as error:
        return str(error)


def _eager(subject: Subject, folder: Path, threads: int) -> Run:
    module = subject.network.module

    def run(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            scores: Tensor = module(pixels)
        return scores

    return run


def _eager_bf16(subject: Subject, folder: Path, threads: int) -> Run:
    eager = _eager(subject, folder, threads)

    def run(pixels: Tensor) -> Tensor:
        with autocast(_CPU, "bfloat16"):
            return eager(pixels).float()

    return run


def _compiled(subject: Subject, folder: Path, threads: int) -> Run:
    module: Any = torch.compile(subject.network.module, dynamic=False)

    def run(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = module(pixels)
        return scores

    return run


def _aoti(subject: Subject, folder: Path, threads: int) -> Run:
    loaded: Any = torch._inductor.aoti_load_package(str(_exported(subject, folder, "aoti")))

    def run(pixels: Tensor) -> Tensor:
        scores: Tensor = loaded(pixels)
        return scores

    return run


def _onnxruntime(subject: Subject, folder: Path, threads: int) -> Run:
    return _session(_exported(subject, folder, "onnx"), threads)


def _onnxruntime_int8(subject: Subject, folder: Path, threads: int) -> Run:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = folder / "int8.onnx"
    exported = _exported(subject, folder, "onnx")
    with quiet():  # it advises to fold constants first, which the exporter has done
        quantize_dynamic(exported, path, weight_type=QuantType.QInt8)
    return _session(path, threads)


def _session(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        (scores,) = session.run(None, {"pixels": pixels.numpy()})
        return torch.from_numpy(scores)

    return run


def _openvino(precision: str) -> Callable[[Subject, Path, int], Run]:
    def prepare(subject: Subject, folder: Path, threads: int) -> Run:
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
        path = _exported(subject, folder, "openvino")
        compiled = openvino.compile_model(path, "CPU", settings)

        def run(pixels: Tensor) -> Tensor:
            return torch.from_numpy(compiled(pixels.numpy())[0].copy())

        return run

    return prepare


def _exported(subject: Subject, folder: Path, to: str) -> Path:
    """Export once, as `ssl-swin export` does, its proof included."""
    out = folder / {"onnx": "it.onnx", "openvino": "it.xml", "aoti": "it.pt2"}[to]
    if not out.exists():
        deploy(subject.folder, out, to=to, outputs="scores", dtype="uint8")
    return out


_ONNX = ("onnx", "onnxscript", "onnxruntime")
WAYS = {
    "eager": Way(_eager),
    "eager bf16": Way(_eager_bf16),
    "compiled": Way(_compiled, is_slow=True, needs_compiler=True),
    "AOTInductor": Way(_aoti, is_slow=True, needs_compiler=True),
    "ONNX Runtime": Way(_onnxruntime, _ONNX, "onnx"),
    "ONNX Runtime int8": Way(_onnxruntime_int8, _ONNX, "onnx"),
    "OpenVINO": Way(_openvino("f32"), (*_ONNX, "openvino"), "openvino"),
    "OpenVINO bf16": Way(_openvino("bf16"), (*_ONNX, "openvino"), "openvino"),
}
REFERENCE = "eager"
