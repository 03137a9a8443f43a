"""The Hub's client, with its errors in one sentence each and no token in any of them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from immunobench.errors import ImmunobenchError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = re.compile(r"hf_\w+")


def connect(endpoint: str | None = None, token: str | None = None) -> "HfApi":
    """A client of the Hub at ``endpoint``, by default that of HF_ENDPOINT, as the signed-in user or with ``token``."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=token)


def split_name(name: str) -> tuple[str, str | None]:
    """Repository and revision of ``ORG/MODEL@REVISION``. Raises UsageError for another form."""
    repository, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"'{name}' is no repository: give ORG/MODEL or ORG/MODEL@REVISION.")
    return repository, revision or None


@contextmanager
def hub_errors(doing: str) -> Iterator[None]:
    """Turn whatever the client raises while ``doing`` something into an ImmunobenchError that says what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except ImmunobenchError:
        raise
    except GatedRepoError:
        why = "the repository is gated: ask for access on its page, then sign in with 'hf auth login'"
    except RepositoryNotFoundError as error:
        # The Hub answers 401 both to a wrong token and for a repository that the token may not see.
        why = (
            "there is no such repository, or the token may not see it: check the name, or sign in with 'hf auth login'"
        )
        if error.response is not None and "Invalid" in error.response.headers.get("X-Error-Message", ""):
            why = "the token is not valid: sign in with 'hf auth login'"
    except RevisionNotFoundError:
        why = "there is no such revision: give a branch, a tag or a commit of the repository"
    except OfflineModeIsEnabled:
        why = "HF_HUB_OFFLINE is set: unset it"
    except HfHubHTTPError as error:
        why = _refusal(error)
    except (LocalEntryNotFoundError, OSError) as error:
        why = f"the Hub cannot be reached ({_first_line(error)}): check the network and HF_ENDPOINT"
    except Exception as error:  # errors of the client's HTTP library have no base class that all its versions share
        if not type(error).__module__.startswith(("httpx", "requests")):
            raise
        why = f"the Hub cannot be reached ({_first_line(error)}): check the network and HF_ENDPOINT"
    else:
        return
    raise ImmunobenchError(f"cannot {doing}: {TOKEN.sub('the token', why)}.") from None


def _refusal(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the token may not do that, or is not valid: sign in with 'hf auth login' and a token that may write"
    return f"the Hub refuses ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def fetch(api: "HfApi", repository: str, revision: str, patterns: list[str], doing: str) -> Path:
    """The files of a model repository that match ``patterns``, at a commit, from the cache where they are there."""
    with hub_errors(doing):
        return Path(api.snapshot_download(repository, revision=revision, allow_patterns=patterns))
