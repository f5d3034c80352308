"""An ONNX file, which ONNX Runtime, OpenVINO and TensorRT read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ssl_swin.deploy.facts import KEY
from ssl_swin.deploy.proof import Runner
from ssl_swin.deploy.targets.base import Target

OPSET = 20  # the first with GELU as one operation
BATCH = "batch"


class Onnx(Target):
    """See the module."""

    ending = ".onnx"
    title = "ONNX"
    extra = "onnx"
    needs = ("onnx", "onnxscript", "onnxruntime")
    runs_with = ("onnxruntime",)

    def write(
        self, program: ExportedProgram, path: Path, facts: Mapping[str, Any], names: tuple[str, ...]
    ) -> None:
        """See `Target.write`; without the paths of this machine that the exporter notes."""
        made = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
        assert made is not None
        model: Any = made.model
        for node in model.graph.all_nodes():
            node.metadata_props.clear()
        model.metadata_props.clear()
        model.metadata_props[KEY] = json.dumps(facts)
        for output, name in zip(model.graph.outputs, names, strict=True):
            output.name = name
        for value in (*model.graph.inputs, *model.graph.outputs):
            _name_batch(value)
        made.save(path, external_data=False)

    def runner(self, path: Path) -> Runner:
        """See `Target.runner`."""
        session = _session(path)

        def run(pixels: torch.Tensor) -> list[torch.Tensor]:
            answers = session.run(None, {"pixels": pixels.numpy()})
            return [torch.from_numpy(answer) for answer in answers]

        return run

    def facts(self, path: Path) -> Mapping[str, Any]:
        """See `Target.facts`."""
        told: Mapping[str, Any] = json.loads(
            _session(path).get_modelmeta().custom_metadata_map[KEY]
        )
        return told

    def usage(self, path: Path) -> str:
        """See `Target.usage`."""
        return f'onnxruntime.InferenceSession({str(path)!r}).run(None, {{"pixels": pixels}})'


def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _name_batch(value: Any) -> None:
    """Call the first dimension of an input or output by its name."""
    shape = value.shape
    if shape is not None:
        shape[0] = BATCH


TARGET = Onnx
