import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from saved_backbones import SAME_WINDOWS, saved

from ssl_swin.encoders.swin import SwinEncoder

sys.path.insert(0, str(Path(__file__).parents[3]))  # benchmarks/ holds the others' model classes


@pytest.fixture
def encoder(tiny_encoder: Callable[..., SwinEncoder]) -> SwinEncoder:
    """A Swin V1 that every format can represent."""
    return tiny_encoder(**SAME_WINDOWS)


@pytest.fixture
def backbone(encoder: SwinEncoder, tmp_path: Path) -> Path:
    """Its folder, with a SimMIM head."""
    return saved(encoder, tmp_path / "backbone")
