"""Repositories on a hub: fetched, with the hub's own client, into its cache."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path

from feedback_adapter.checkpoint.schema import shortly
from feedback_adapter.errors import CheckpointError

__all__ = ["HUB", "LOCAL", "fetch"]

HUB, LOCAL = "hf-hub:", "local-dir:"
"""How timm, and this library, name a repository on the hub, and a folder here."""


def fetch(name: str, *files: str, optional: Sequence[str] = ()) -> Path:
    """A folder with files of a repository, all of one commit.

    They are in the cache of huggingface_hub, which asks the hub only for what it lacks; where the
    hub can't be reached, what is there is used.

    Args:
        name: `"hf-hub:owner/name"` or `"hf-hub:owner/name@revision"`.
        *files: The files, by their full names, at least one.
        optional: Further files, which the repository may lack.

    Raises:
        CheckpointError: The hub can't be reached or refuses, or there is no such repository,
            revision or file.
    """
    from huggingface_hub import hf_hub_download

    repo, _, revision = name.removeprefix(HUB).partition("@")
    folder = None
    for file in (*files, *optional):
        commit = folder.name if folder is not None else revision or None
        with _said(repo, revision, file, needed=file in files):
            folder = Path(hf_hub_download(repo, file, revision=commit)).parent
    assert folder is not None, "at least one file is asked for"
    return folder


@contextlib.contextmanager
def _said(repo: str, revision: str, file: str, *, needed: bool) -> Generator[None]:
    """Say what went wrong between here and the hub, of which repository and file."""
    from huggingface_hub import constants, errors

    where = f"{HUB}{repo}@{revision}" if revision else f"{HUB}{repo}"
    login = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.HFValidationError as error:
        raise CheckpointError(
            f"{shortly(where)} names no repository: write hf-hub:owner/name, and @revision after "
            "it for another revision than the newest."
        ) from error
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{where} asks you to accept its terms before {file} is yours: do so on its page, "
            f"{constants.ENDPOINT}/{repo}, then {login}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{where}: {constants.ENDPOINT} shows you no such repository (it was asked for {file})."
            f" Check the name; if it is private, {login}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{where} has no revision {revision!r}: give a branch, a tag or a whole commit hash."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ else ""
        raise CheckpointError(
            f"{where}: {constants.ENDPOINT} can't be reached, and {file} isn't in the cache here. "
            f"Check the connection, HF_ENDPOINT and HF_HUB_OFFLINE.{cause:.500}"
        ) from error
    except errors.EntryNotFoundError as error:
        if needed:
            raise CheckpointError(f"{where} has no {file}.") from error
    except Exception as error:  # a network, a disk and a client can fail in any way
        raise CheckpointError(
            f"{where}: {file} can't be fetched from {constants.ENDPOINT}: "
            f"{type(error).__name__}: {str(error)[:500]}"
        ) from error
