"""Backbones on the Hugging Face hub: fetching one, and uploading one.

`huggingface_hub` does the transfers and reads HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE.
Weights are only ever read as safetensors.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ssl_swin import __version__
from ssl_swin.errors import UserError
from ssl_swin.weights.backbone import CARD, CONFIG, WEIGHTS, import_for_timm, load_backbone
from ssl_swin.weights.hub_card import hub_card

PREPROCESSOR = "preprocessor_config.json"  # where transformers keep the normalisation
LOGIN = "log in with `hf auth login` or set HF_TOKEN"
# What the HTTP client of huggingface_hub raises without an answer: requests, httpx or httpx2.
_CLIENT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]


def download_backbone(repository: str) -> Path:
    """Fetches a repository's configurations, weights and card into the cache of huggingface_hub.

    Without a connection, what an earlier call fetched is given.

    Args:
        repository: USER/NAME, or USER/NAME@REVISION for a branch, tag or commit.

    Returns:
        The folder of the files, in the layout of whoever pushed them.

    Raises:
        UserError: If the hub cannot be reached or refuses, or the repository or its revision does
            not exist, holds no config.json and model.safetensors, or arrived damaged.
    """
    name, _, revision = repository.partition("@")
    with _hub_calls(f"hf-hub:{repository}"):
        given = snapshot_download(
            name, revision=revision or None, allow_patterns=[CONFIG, PREPROCESSOR, WEIGHTS, CARD]
        )
    folder = Path(given)
    missing = [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"hf-hub:{repository} holds no {' and no '.join(missing)}, so it is no backbone; "
            "pickled weights such as pytorch_model.bin are never loaded"
        )
    _check_content(folder / WEIGHTS)
    _check_configuration(folder / CONFIG)
    return folder


def push_backbone(
    folder: Path, repository: str, *, private: bool = False, license_id: str | None = None
) -> str:
    """Uploads a backbone or classifier folder with its card, in one commit.

    Args:
        folder: Holds config.json and model.safetensors, and mostly README.md.
        repository: USER/NAME; it is created if there is none.
        private: Only for those with access. An existing repository keeps what it is.
        license_id: License for the card, such as "mit"; None leaves the card's own, if any.

    Returns:
        Address of the repository.

    Raises:
        UserError: If the folder does not load, there is no token, the hub refuses, or the
            repository is public and should be private; then nothing is uploaded.
    """
    load_backbone(folder)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository):
        raise UserError(f"the repository must be given as USER/NAME, got {repository!r}")
    if get_token() is None:
        raise UserError(f"uploading needs a Hugging Face token with write access: {LOGIN}")
    config = json.loads((folder / CONFIG).read_text())
    written = (folder / CARD).read_text() if (folder / CARD).is_file() else ""
    card = hub_card(
        written,
        repository,
        is_classifier=config.get("num_classes", 0) > 0,
        license_id=license_id,
        timm_import=import_for_timm(folder),
        channels=config["pretrained_cfg"]["input_size"][0],
    )
    with _hub_calls(repository):
        api = HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UserError(
                f"{api.endpoint}/{repository} exists and is public: nothing was uploaded; "
                "make it private in its settings, or choose another name"
            )
        api.create_commit(
            repository,
            [
                CommitOperationAdd(CONFIG, folder / CONFIG),
                CommitOperationAdd(WEIGHTS, folder / WEIGHTS),
                CommitOperationAdd(CARD, card.encode()),
            ],
            commit_message=f"Upload a backbone with ssl_swin {__version__}",
        )
    return f"{api.endpoint}/{repository}"


@contextmanager
def _hub_calls(subject: str) -> Iterator[None]:
    """Keeps the hub's client from reporting on this machine, and explains its errors."""
    telemetry_was_off = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    except UserError:
        raise
    except (_CLIENT_ERROR, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{subject}: {_explain(error)}") from error
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry_was_off


def _explain(error: BaseException) -> str:
    if isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and error.__cause__:
        return _explain(error.__cause__)  # these only say that something failed on the way
    endpoint = constants.ENDPOINT
    match error:
        case HFValidationError():
            return "this is not a repository on the hub: give USER/NAME or USER/NAME@REVISION"
        case OfflineModeIsEnabled():
            return "offline mode is on, and nothing of it is in the cache: unset HF_HUB_OFFLINE"
        case GatedRepoError():
            return f"access must be asked for on {endpoint}; then {LOGIN}"
        case RepositoryNotFoundError():
            return f"{endpoint} has no such model, or it is private: check the name, or {LOGIN}"
        case RevisionNotFoundError():
            return f"the repository at {endpoint} has no such revision"
        case HfHubHTTPError(response=response) if response.status_code in (401, 403):
            return f"{endpoint} refuses access ({response.status_code}); {LOGIN}, as one who may"
        case HfHubHTTPError(response=response):
            return f"{endpoint} answered with an error, status {response.status_code}; try later"
        case _ if isinstance(error, _CLIENT_ERROR) and not isinstance(error, OSError):
            return f"no connection to {endpoint} ({error}); check the network and HF_ENDPOINT"
    return " ".join(str(error).split())


def _check_content(weights: Path) -> None:
    """Compares large files, which the hub's cache names by their SHA-256, with that name."""
    blob = weights.resolve()
    if not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return
    with blob.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != blob.name:
        raise UserError(
            f"{weights} arrived damaged: its hash is {digest[:12]}..., not {blob.name[:12]}...; "
            f"delete {blob} and try again"
        )


def _check_configuration(config: Path) -> None:
    """Refuse what is no JSON object; the cache does not name small files by what is in them."""
    try:
        is_object = isinstance(json.loads(config.read_text("utf-8")), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise UserError(
            f"{config} is no JSON object, so it describes no model: it arrived damaged, or was "
            f"published so; delete {config.resolve()} and try again"
        )
