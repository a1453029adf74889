"""A finished export to the hub: asked for by name, refused when it cannot be whole, and one commit.

The token is the hub's own affair (`hf auth login`, or `HF_TOKEN`): it is never read, kept or printed here.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cai.errors import DataError
from cai.models.resolving import hub_offline

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KIND = "dataset"


def check_push(repo_id: str) -> None:
    """Refuse a push that cannot succeed, before anything is written: offline, unreachable, no token, not a name.

    Raises:
        DataError: With what to do.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise DataError(f"--push {repo_id}: not a name of the hub.", "Names look like `owner/name`.") from error
    if hub_offline():
        raise DataError(
            f"--push {repo_id}: HF_HUB_OFFLINE is set; nothing was written or sent.",
            "Unset it to push, or export without --push and upload the folder from another machine: hf upload.",
        )
    with _in_words(repo_id):
        cast("Any", _api()).whoami()


def push_folder(folder: Path, repo_id: str, *, private: bool) -> str:
    """Upload a folder as a data set in one commit; the repository is made when it is missing. Returns the commit's address.

    What an earlier push left in the repository under other names stays there; the new card does not name it.

    Raises:
        DataError: If the hub refuses or is gone. No file of this push is in the repository then, though an empty one may be.
    """
    api = _api()
    with _in_words(repo_id):
        api.create_repo(repo_id, repo_type=KIND, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type=KIND).private:
            raise DataError(
                f"--push {repo_id}: is there already, and everybody can see it; nothing was sent.",
                "Make it private in its settings, or take another name.",
            )
        done = api.upload_folder(
            repo_id=repo_id, folder_path=folder, repo_type=KIND, commit_message="Data set by constitution-cai"
        )
    return str(done.commit_url)


@contextmanager
def _in_words(repo_id: str) -> Generator[None]:
    """What huggingface_hub raises inside, as an error of ours."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise DataError(f"--push {repo_id}: nobody is logged in to the hub.", "`hf auth login`, or set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        hint = {
            401: "The token is wrong or has expired: `hf auth login`.",
            403: "The token may not write there: take one with write access, or another owner.",
        }.get(error.response.status_code, "Try again later, or upload the folder with `hf upload`.")
        raise DataError(f"--push {repo_id}: the hub refuses it: {_one_line(error)}", hint) from error
    except (HTTPError, OSError) as error:
        raise DataError(
            f"--push {repo_id}: the hub cannot be reached; no file of this push is there.",
            "Check the network, or upload the folder later: hf upload.",
        ) from error
    except ValueError as error:  # what the hub says of the card's front matter
        raise DataError(f"--push {repo_id}: the hub refuses it: {_one_line(error)}", "The export is in its folder.") from error


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="constitution-cai")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
