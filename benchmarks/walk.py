"""Which modules of ssl_swin run in one training step, or while an encoder is built for fine-tuning.

python benchmarks/walk.py step pretrain.py [SETTING ...]
python benchmarks/walk.py build_encoder finetune.py [SETTING ...]

The script is that of a checkout of any version, whose package is then the one that runs. A step
goes from the second call of `training_step` to the third, with the batch that is loaded in between
(num_workers=0).
"""

import argparse
import runpy
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any


class Walk:
    """The modules entered in the part of a program that is watched, in their order."""

    def __init__(self, package: Path, part: str) -> None:
        self.prefix, self.part = f"{package}/", part
        self.modules: list[str] = []
        self._steps, self._builder, self._finished = 0, None, False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Follow one call or return; made for `sys.setprofile`."""
        if event == "return" and frame is self._builder:
            self._finished = True
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(self.prefix):
            return
        module, function = file.removeprefix(self.prefix).removesuffix(".py"), frame.f_code.co_name
        self._steps += function == "training_step"
        if function == "build_encoder" and module.startswith("launch/") and not self._builder:
            self._builder = frame
        if self._watching() and function != "<module>":
            self.modules.append(module)

    def _watching(self) -> bool:
        if self.part == "step":
            return self._steps == 2
        return self._builder is not None and not self._finished

    def summary(self) -> str:
        """Returns the number of modules and of distinct passages from one to another."""
        stays = [m for i, m in enumerate(self.modules) if i == 0 or m != self.modules[i - 1]]
        passages = set(pairwise(stays))
        names = sorted(set(self.modules))
        return f"{len(names)} modules, {len(passages)} passages: {', '.join(names)}"


def main(arguments: Sequence[str]) -> None:
    """Run a job under the profiler, and print its walk."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["step", "build_encoder"])
    parser.add_argument("script", type=Path, help="pretrain.py or finetune.py of a checkout")
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="of the job")
    args = parser.parse_args(arguments)
    root = args.script.resolve().parent
    walk = Walk(root / "ssl_swin", args.part)
    sys.path.insert(0, str(root))
    sys.argv = [str(args.script), *args.settings]
    sys.setprofile(walk)
    try:
        runpy.run_path(str(args.script), run_name="__main__")
    finally:
        sys.setprofile(None)
    print(f"{args.part}: {walk.summary()}")


if __name__ == "__main__":
    main(sys.argv[1:])
