"""A finished masked pretraining, with the head that its backbone is handed on without."""

from pathlib import Path

from omegaconf import OmegaConf

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.targets import make
from ssl_swin.objectives.base import Objective
from ssl_swin.objectives.simmim import MaskedImageModel
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.renamed import up_to_date
from ssl_swin.weights.backbone import Backbone, load_extra_weights


def masked_model_of(run: Path, backbone: Backbone) -> MaskedImageModel | None:
    """Return what a run has trained, around its encoder; None if it is no masked pretraining.

    Args:
        run: Folder of a run.
        backbone: That it has handed on; the encoder is shared.

    Raises:
        UserError: If its configuration is damaged, or its objective cannot be made any more.
    """
    folder = RunFolder(run)
    if not folder.config.is_file():
        return None
    try:
        objective = _objective(folder.config, backbone.encoder)
    except Exception as error:  # of YAML's, OmegaConf's and of whatever is called
        problem = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder.config} does not tell what was trained ({problem}): give {folder.backbone}, "
            "which does without"
        ) from error
    if not isinstance(objective, MaskedImageModel):
        return None
    filled = load_extra_weights(folder.backbone, objective.extra_weights())
    others = {name for name, _ in objective.named_parameters() if not name.startswith("encoder.")}
    return objective if others <= set(filled) else None


def _objective(config: Path, encoder: Encoder) -> Objective | None:
    register_resolvers()
    plain = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
    if not isinstance(plain, dict):
        raise ValueError("it is no configuration")
    settings = up_to_date({str(key): value for key, value in plain.items()}).get("objective")
    if settings is None:
        return None
    objective: Objective = make(OmegaConf.create(settings))(encoder)
    return objective
