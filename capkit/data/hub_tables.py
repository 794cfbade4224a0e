"""Parquet tables of a data set on Hugging Face's hub, by its address; none of its code is read or run."""

import re
from pathlib import Path

from capkit.errors import UsageError
from capkit.text.tokenizers import hub_reachable

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def parse_address(address: str) -> tuple[str, str | None]:
    """OWNER/NAME and the revision of `hf://datasets/OWNER/NAME[@REVISION]`. Raises UsageError."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"folder: expected hf://datasets/OWNER/NAME, or with @REVISION behind it, got {address!r}")
    return found[1], found[2]


def fetched(name: str, revision: str | None) -> Path:
    """Where the hub's cache holds the data set's tables, fetched unless they are there; without a network, as they are.

    Raises UsageError, with what to do, where they cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                name,
                repo_type="dataset",
                revision=revision,
                allow_patterns=["*.parquet"],
                local_files_only=not hub_reachable(),
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        told = str(error).strip().split("\n")[0]
        raise UsageError(
            f"hf://datasets/{name}: the hub gives no such data set here ({told}); where the set wants it, accept its "
            "terms and log in by `hf auth login`; on a machine without network, fetch it elsewhere by "
            f"`hf download --repo-type dataset {name} --local-dir DIR` and give that folder"
        ) from error
    if not any(folder.rglob("*.parquet")):
        raise UsageError(
            f"hf://datasets/{name}: no .parquet file{'' if revision is None else f' at {revision}'}; the hub's own "
            f"conversion, where there is one, is hf://datasets/{name}@refs/convert/parquet"
        )
    return folder
