"""An OpenVINO model, made of the ONNX file, in float32."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ssl_swin.deploy.facts import KEY
from ssl_swin.deploy.proof import Runner
from ssl_swin.deploy.targets.base import Target
from ssl_swin.deploy.targets.onnx_file import Onnx


class OpenVino(Target):
    """See the module; the weights lie beside the file, in NAME.bin."""

    ending = ".xml"
    title = "OpenVINO"
    extra = "openvino"
    needs = (*Onnx.needs, "openvino")
    runs_with = ("openvino",)

    def beside(self, path: Path) -> tuple[Path, ...]:
        """See `Target.beside`: the weights."""
        return (path.with_suffix(".bin"),)

    def write(
        self, program: ExportedProgram, path: Path, facts: Mapping[str, Any], names: tuple[str, ...]
    ) -> None:
        """See `Target.write`."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            onnx = Path(folder) / "model.onnx"
            Onnx().write(program, onnx, facts, names)
            model = openvino.convert_model(onnx)
        model.set_rt_info(json.dumps(facts), [KEY])
        openvino.save_model(model, path, compress_to_fp16=False)

    def runner(self, path: Path) -> Runner:
        """See `Target.runner`; in float32, where the default may be bfloat16."""
        import openvino

        compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(pixels: torch.Tensor) -> list[torch.Tensor]:
            answers = compiled(pixels.numpy())
            return [torch.from_numpy(answers[index].copy()) for index in range(len(answers))]

        return run

    def facts(self, path: Path) -> Mapping[str, Any]:
        """See `Target.facts`."""
        import openvino

        told: Mapping[str, Any] = json.loads(
            openvino.Core().read_model(path).get_rt_info([KEY]).astype(str)
        )
        return told

    def usage(self, path: Path) -> str:
        """See `Target.usage`."""
        return f'openvino.compile_model({str(path)!r}, "CPU")(pixels)'


TARGET = OpenVino
