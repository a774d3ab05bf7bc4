"""What goes wrong at a Hugging Face hub, as an OmniError with a way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from deployments.library.hub_client import endpoint, has_token, page_url
from omni.errors import OmniError


@contextmanager
def hub_errors(repo: str, revision: str) -> Iterator[None]:
    """Raises OmniError in place of what the hub's own library raises."""
    try:
        yield
    except OfflineModeIsEnabled:
        fix = "Start Omni without HF_HUB_OFFLINE, or copy the files into a folder of the library."
        raise OmniError(
            "hub_offline", "HF_HUB_OFFLINE is set, so the hub is not asked.", fix
        ) from None
    except GatedRepoError:
        raise _gated(repo) from None
    except RepositoryNotFoundError:
        fix = "Check the spelling." + (
            "" if has_token() else " A private one needs HF_TOKEN."
        )
        raise OmniError(
            "hub_not_found", f"There is no repository {repo}, or it is private.", fix
        ) from None
    except RevisionNotFoundError:
        raise OmniError(
            "hub_not_found",
            f"{repo} has no revision {revision}.",
            "Leave the revision out.",
        ) from None
    except EntryNotFoundError:
        fix = "Look the repository up again: its owner may have replaced the file."
        raise OmniError(
            "hub_not_found", f"A file of {repo} is gone from the hub.", fix
        ) from None
    except HFValidationError as error:
        raise OmniError(
            "bad_repo", f"{repo} is no repository: {error}", "Write owner/name."
        ) from None
    except HfHubHTTPError as error:
        raise _refused(repo, error) from None
    except httpx2.TooManyRedirects:
        text = f"{endpoint()} sends from one address to the next without end."
        raise OmniError(
            "hub_redirect", text, "Use another hub or mirror (HF_ENDPOINT)."
        ) from None
    except (
        httpx2.RequestError,
        httpx2.InvalidURL,
        ConnectionError,
        TimeoutError,
    ) as error:
        text = f"{endpoint()} cannot be reached ({str(error) or type(error).__name__})."
        raise OmniError(
            "hub_unreachable", text, "Check the network, then try again.", retry=True
        ) from None


def _gated(repo: str) -> OmniError:
    if has_token():
        fix = (
            f"Accept its terms at {page_url(repo)} with the account that HF_TOKEN belongs to, then"
            " try again."
        )
    else:
        fix = (
            f"Accept its terms at {page_url(repo)}, make a token there and start Omni with HF_TOKEN"
            " set to it."
        )
    return OmniError(
        "hub_gated", f"{repo} is gated: its owner wants to know who downloads it.", fix
    )


def _refused(repo: str, error: HfHubHTTPError) -> OmniError:
    status = error.response.status_code if error.response is not None else 0
    if status == 401:
        return OmniError(
            "hub_token",
            "The hub does not take the token.",
            "Set HF_TOKEN to one that is still valid.",
        )
    if status == 429:
        text = "The hub has had too many requests from here."
        return OmniError(
            "hub_busy", text, "Wait a few minutes, then try again.", retry=True
        )
    if status >= 500:
        return OmniError(
            "hub_busy",
            f"The hub answers with error {status}.",
            "Try again in a while.",
            retry=True,
        )
    return OmniError(
        "hub_refused",
        f"The hub refuses {repo} (status {status}).",
        f"Look at {page_url(repo)}.",
    )
