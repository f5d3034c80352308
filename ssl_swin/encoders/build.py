"""Building an encoder again from what it says of itself."""

import importlib
import json
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import ssl_swin.encoders
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError


def known_architectures() -> dict[str, type[Encoder]]:
    """Return the encoder class of every architecture, of this package and of its users."""
    for module in pkgutil.iter_modules(ssl_swin.encoders.__path__):
        importlib.import_module(f"{ssl_swin.encoders.__name__}.{module.name}")
    return {
        architecture: encoder
        for encoder in _families(Encoder)  # type: ignore[type-abstract]
        for architecture in vars(encoder).get("architectures", ())
    }


def _families(base: type[Encoder]) -> Iterator[type[Encoder]]:
    """Yield the classes below a class, however far; one that names no architecture has none."""
    for encoder in base.__subclasses__():
        yield encoder
        yield from _families(encoder)


def build_encoder(
    architecture: str,
    model_args: Mapping[str, Any],
    *,
    drop_path_rate: float = 0.0,
    grad_checkpointing: bool = False,
) -> Encoder:
    """Rebuild an encoder, with random weights, from what `Encoder` says of itself.

    Args:
        architecture: Name of a timm model, one of `known_architectures`.
        model_args: The encoder's own `model_args`; lists may stand for tuples, as in JSON.
        drop_path_rate: Stochastic depth of the training to come.
        grad_checkpointing: Whether the training to come recomputes activations.

    Raises:
        UserError: If the architecture is unknown here, or the arguments are not those of an encoder
            of it.
    """
    known = known_architectures()
    if architecture not in known:
        raise UserError(
            f"the architecture {architecture!r} is unknown here; known: {', '.join(known)}"
        )
    try:
        encoder = known[architecture].rebuild(
            architecture,
            model_args,
            drop_path_rate=drop_path_rate,
            grad_checkpointing=grad_checkpointing,
        )
    except KeyError as error:
        raise UserError(f"the arguments of {architecture} lack {error}") from error
    for name, value in model_args.items():
        if _as_json(value) != _as_json(encoder.model_args.get(name)):
            raise UserError(
                f"an encoder of the architecture {architecture} has "
                f"{name}={encoder.model_args.get(name)} here, not {value}"
            )
    return encoder


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
