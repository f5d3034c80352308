"""An exported file as a predictor: its own runtime computes the scores."""

import hashlib
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from ssl_swin.deploy.facts import FileFacts, read_facts
from ssl_swin.deploy.proof import Runner
from ssl_swin.deploy.targets.base import Target, check_installed, target_of
from ssl_swin.errors import UserError
from ssl_swin.inference.predictors.base import Options
from ssl_swin.inference.predictors.class_answers import ClassAnswers, Logits
from ssl_swin.inference.vectors import Precision
from ssl_swin.pixels import normalize
from ssl_swin.plurals import counted

ENDINGS = {".onnx": "onnx", ".pt2": "torch-export", ".xml": "openvino"}  # to words of `TARGETS`


class FilePredictor(ClassAnswers):
    """A classifier that `ssl-swin export` wrote, on the processor."""

    only_device = "cpu"

    def __init__(self, facts: FileFacts, run: Runner, digest: str) -> None:
        """Wrap a file that was opened.

        Args:
            facts: What it says of itself.
            run: Maps pixels to scores.
            digest: Of its bytes.
        """
        super().__init__()
        self.model = nn.Module()
        self.encoder = facts
        self.classes, self.temperature = facts.classes, facts.temperature
        self.mean, self.std, self.crop_ratio = facts.mean, facts.std, facts.crop_ratio
        self._dtype = getattr(torch, facts.dtype)
        self._run, self._digest = run, digest

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Predictor.load`.

        Args:
            folder: The file.

        Raises:
            UserError: If it is none that `ssl-swin export` wrote, gives no scores, or its runtime
                is not installed.
        """
        target = target_of(ENDINGS[folder.suffix.lower()])
        check_installed(target, target.runs_with)
        facts, run = _opened(target, folder)
        if facts.outputs != ("scores",):
            raise UserError(
                f"{folder} gives {', '.join(facts.outputs)}, and no scores of classes: export the "
                "run of a fine-tuning"
            )
        return cls(facts, run, _digest_of(folder))

    def facts(self, options: Options) -> dict[str, object]:
        """See `Predictor.facts`."""
        return {**super().facts(options), "file": self._digest}

    def logits_function(self, device: torch.device, precision: Precision) -> Logits:
        """See `ClassAnswers.logits_function`.

        Raises:
            UserError: If it is to compute elsewhere, or otherwise, than it can.
        """
        if device.type != self.only_device or precision != "float32":
            raise UserError(
                "an exported file computes on the CPU, as it was exported: leave --device and "
                f"--precision out, which are {device} and {precision}"
            )

        def logits_of(pixels: Tensor) -> Tensor:
            (scores,) = self._run(self._as_taken(pixels))
            if scores.shape != (len(pixels), len(self.classes)):
                raise UserError(
                    f"the file names {counted(len(self.classes), 'class')}, and gives scores of "
                    f"{tuple(scores.shape)} for {counted(len(pixels), 'image')}: export it again"
                )
            return scores.float()

        return logits_of

    def _as_taken(self, pixels: Tensor) -> Tensor:
        if pixels.dtype == self._dtype:
            return pixels
        if self._dtype != torch.float32:
            raise UserError(
                f"the file takes pixels of {self._dtype}, and these are {pixels.dtype}: "
                "--pixel-dtype must be that of the file"
            )
        nothing = [0.0] * pixels.shape[1]
        return normalize(pixels, nothing, [1.0] * pixels.shape[1])


def is_exported(reference: str) -> bool:
    """Return whether a reference names a file of a kind that is exported."""
    path = Path(reference)
    return path.suffix.lower() in ENDINGS and path.is_file()


def _opened(target: Target, path: Path) -> tuple[FileFacts, Runner]:
    try:
        return read_facts(target.facts(path)), target.runner(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # of the runtimes' many kinds
        problem = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is no {target.title} file that ssl-swin export wrote, or it is damaged: "
            f"{type(error).__name__} {problem}"
        ) from error


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    for each in (path, path.with_suffix(".bin")):  # the weights of OpenVINO
        if each.is_file():
            with each.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
