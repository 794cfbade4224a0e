"""Uploading an exported folder to a model hub."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from capkit.errors import RunFailure, UsageError


def check_push(repository: str, private: bool) -> None:
    """Whether an upload can be begun, by asking the hub for the repository.

    Raises UsageError for a name that is no OWNER/NAME, for a hub that is switched off, without a token, and where the
    repository is there already and everybody reads it though it should be private; RunFailure where the hub refuses or
    cannot be reached.
    """
    try:
        validate_repo_id(repository)
        is_whole = "/" in repository
    except HFValidationError:
        is_whole = False
    if not is_whole:
        raise UsageError(f"push_to={repository}: expected OWNER/NAME of a repository on the hub; give both")
    if is_offline_mode():
        raise UsageError(
            f"push_to={repository}: expected a hub that may be reached, got HF_HUB_OFFLINE; unset it, or leave "
            "push_to out"
        )
    if get_token() is None:
        raise UsageError(
            f"push_to={repository}: expected a token of the hub, got none; log in by `hf auth login`, or set HF_TOKEN"
        )
    try:
        is_public = not HfApi(token=get_token()).model_info(repository).private
    except RepositoryNotFoundError:
        return
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise RunFailure(
            f"push_to={repository}: the hub did not say whether it is there ({_said(error)}); nothing was written: "
            "mend this, or export without push_to"
        ) from None
    if is_public and private:
        raise UsageError(
            f"push_to={repository}: expected a new or private repository, got one that everybody can read; give "
            "public=true if they may read this too, or another name"
        )


def push_folder(folder: Path, repository: str, private: bool) -> str:
    """Upload all files of a folder in one commit; returns the address of the repository.

    A repository that does not exist is made, `private` or public; one that exists stays as visible as it is, and its
    files of other names stay. The token is the one of `hf auth login` or HF_TOKEN, and is in no message. Raises
    RunFailure where the hub refuses or cannot be reached.
    """
    api = HfApi(token=get_token())
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Export of capkit")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise RunFailure(
            f"push_to={repository}: the hub did not take it ({_said(error)}); {folder} is whole: mend this and upload "
            f"it by `hf upload {repository} {folder}{' --private' if private else ''}`"
        ) from None  # the error before holds the request, and so the token
    return str(made)


def _said(error: Exception) -> str:
    """What is known of an error, without the token that its request held."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".replace(get_token() or "\0", "(token)")
