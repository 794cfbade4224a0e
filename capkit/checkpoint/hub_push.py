"""Uploading an exported folder to a model hub."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from capkit.errors import RunFailure, UsageError


def check_push(repository: str) -> None:
    """Raises UsageError for a name that is no OWNER/NAME, for a hub that is switched off, and without a token."""
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


def push_folder(folder: Path, repository: str, private: bool) -> str:
    """Upload all files of a folder in one commit; returns the address of the repository.

    A repository that does not exist is made, `private` or public; one that exists stays as visible as it is. The token
    is the one of `hf auth login` or HF_TOKEN, and is in no message. Raises RunFailure where the hub refuses or cannot
    be reached.
    """
    token = get_token()
    api = HfApi(token=token)
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Export of capkit")
    except (HfHubHTTPError, OSError, ValueError) as error:
        said = " ".join(str(error).split()).replace(token or "\0", "(token)")
        raise RunFailure(
            f"push_to={repository}: the hub did not take it ({type(error).__name__}: {said}); {folder} is whole: mend "
            f"this and upload it by `hf upload {repository} {folder}`"
        ) from None  # the error before holds the request, and so the token
    return str(made)
