from collections.abc import Callable
from typing import Any

import pytest
import timm

from ssl_swin.encoders.swin import SwinEncoder


@pytest.fixture
def timm_twin() -> Callable[[SwinEncoder], Any]:
    """Builds timm's own model, with none of our classes in it, with the weights of an encoder."""

    def build(encoder: SwinEncoder) -> Any:
        twin = timm.create_model(encoder.architecture, num_classes=0, **encoder.model_args)
        twin.eval().to(encoder.model.norm.weight.dtype).load_state_dict(encoder.model.state_dict())
        packages = {type(module).__module__.partition(".")[0] for module in twin.modules()}
        assert packages == {"timm", "torch"}
        return twin

    return build
