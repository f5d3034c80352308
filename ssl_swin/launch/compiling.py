"""Compiled blocks, if a job asks for them."""

import os
import shlex
import shutil

import torch

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.launch.printing import say


def compile_blocks(encoder: Encoder) -> None:
    """Compiles an encoder's blocks, and says what that costs.

    Raises:
        UserError: If there is no C++ compiler, which torch.compile works with.
    """
    compiler = shlex.split(os.environ.get("CXX", "g++"))[0]
    if shutil.which(compiler) is None and shutil.which("clang++") is None:
        raise UserError(
            f"compile=true needs a C++ compiler, and there is no {compiler}: install one, name it "
            "in the environment variable CXX, or leave compile=false"
        )
    torch._dynamo.reset()  # of what earlier jobs of a sweep compiled
    say("compiling the encoder's blocks: the first step takes up to a minute or more")
    encoder.compile_blocks()
