"""Compiled blocks, if a job asks for them."""

import os
import shlex
import shutil
from collections.abc import Sequence

import torch

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import Size
from ssl_swin.errors import UserError
from ssl_swin.launch.printing import say


def compile_blocks(encoder: Encoder, any_sizes: Sequence[Size] = ()) -> None:
    """Compiles an encoder's blocks, and says what that costs.

    Args:
        encoder: The encoder.
        any_sizes: Sizes in px that come again and again where images have any size.

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
    encoder.compile_blocks(*any_sizes)
