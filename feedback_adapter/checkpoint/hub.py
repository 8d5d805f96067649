"""Repositories on a hub: fetched and pushed with the hub's own client."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Protocol

from feedback_adapter.checkpoint.architecture import Architecture
from feedback_adapter.checkpoint.schema import shortly
from feedback_adapter.errors import CheckpointError

HUB, LOCAL = "hf-hub:", "local-dir:"
"""How timm, and this library, name a repository on the hub, and a folder here."""
_LEFT = ("config.json", "feedback_adapter.json", "feedback_adapter.safetensors")
"""What a checkpoint that was pushed before may have left in a repository."""


class Savable(Protocol):
    """An adapter, as far as pushing needs it."""

    def save(self, directory: str | Path, *, architecture: Architecture | None = None) -> Path:
        """See `Adapter.save`."""
        ...


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
    from huggingface_hub import errors, hf_hub_download

    repo, _, revision = name.removeprefix(HUB).partition("@")
    reach(repo, files[0], revision=revision)
    folder = None
    for file in (*files, *optional):
        commit = folder.name if folder is not None else revision or None
        missing = () if file in files else (errors.EntryNotFoundError,)
        with _said(repo, revision, f"{file} can't be fetched"), contextlib.suppress(*missing):
            folder = Path(hf_hub_download(repo, file, revision=commit)).parent
    assert folder is not None, "at least one file is asked for"
    return folder


def reach(repo: str, *files: str, revision: str = "") -> None:
    """Ask the hub once, unless the cache has one of the files: a download goes on for a minute.

    Args:
        repo: `"owner/name"`.
        *files: The one to ask for, and others that do instead.
        revision: Of the repository; empty for the newest.

    Raises:
        CheckpointError: The hub can't be reached.
    """
    from huggingface_hub import (
        errors,
        get_hf_file_metadata,
        hf_hub_url,
        try_to_load_from_cache,
    )

    with _said(repo, revision, f"{files[0]} can't be fetched"):
        some = revision or None
        if any(isinstance(try_to_load_from_cache(repo, f, revision=some), str) for f in files):
            return
        try:
            get_hf_file_metadata(hf_hub_url(repo, files[0], revision=some))
        except (errors.HfHubHTTPError, errors.HFValidationError):
            pass  # it was reached; the download says what is the matter
        except Exception as error:  # a client's or the network's, by many names
            raise errors.LocalEntryNotFoundError(str(error)) from error


def push_to_hub(
    self: Savable,
    name: str,
    *,
    private: bool | None = None,
    message: str = "A checkpoint of feedback_adapter",
    architecture: Architecture | None = None,
) -> str:
    """Save to a repository on the hub, so that `load("hf-hub:owner/name")` makes it again.

    The repository is made if it isn't there; what is in it beside the files of a checkpoint stays.
    The hub is the one that huggingface_hub talks to: `HF_ENDPOINT`, as the user who is logged in
    (`hf auth login` or `HF_TOKEN`).

    Args:
        self: The adapter.
        name: `"owner/name"`, or `"owner/name@branch"`, a branch that is made if it isn't there.
        private: Whether a new repository is; by default as the owner's settings say.
        message: Of the commit.
        architecture: As for `save`.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: As for `save`; or the hub can't be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    repo, _, branch = str(name).removeprefix(HUB).partition("@")
    task = "the checkpoint can't be pushed"
    with _said(repo, branch, task):
        validate_repo_id(repo)
    with tempfile.TemporaryDirectory() as place:
        folder = self.save(Path(place) / repo.rpartition("/")[2], architecture=architecture)
        with _said(repo, branch, task):
            api = HfApi(library_name="feedback_adapter")
            repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
            if branch:
                api.create_branch(repo, branch=branch, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                revision=branch or None,
                commit_message=message,
                delete_patterns=list(_LEFT),  # where the folder hasn't them
            )
    return str(commit.commit_url)


@contextlib.contextmanager
def _said(repo: str, revision: str, task: str) -> Generator[None]:
    """Say what went wrong between here and the hub, and of which repository."""
    from huggingface_hub import errors

    where = f"{HUB}{repo}@{revision}" if revision else f"{HUB}{repo}"
    try:
        yield
    except errors.HFValidationError as error:
        raise CheckpointError(
            f"{shortly(where)} names no repository: write hf-hub:owner/name, and @revision after "
            "it for another revision than the newest."
        ) from error
    except Exception as error:  # a network, a disk and a client can fail in any way
        raise CheckpointError(f"{where}: {task}{_why(error, repo, revision)}") from error


def _why(error: Exception, repo: str, revision: str) -> str:
    """Why a task failed, as the end of the sentence that names it."""
    from huggingface_hub import constants, errors

    hub, login = constants.ENDPOINT, "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f" before you accept its terms: do so on its page, {hub}/{repo}, then {login}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f": {hub} shows you no such repository. Check the name; if it is private, {login}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f": there is no revision {revision!r}. Give a branch, a tag or a whole commit hash."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f", since {hub} can't be reached and it isn't in the cache here. Check the connection, "
            f"HF_ENDPOINT and HF_HUB_OFFLINE. {_cause(error.__cause__ or error)}"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return ": the repository has no such file."
    status = getattr(getattr(error, "response", None), "status_code", None)
    hint = f". You may have to {login}." if status in (401, 403) else ""
    return f" ({hub}). {_cause(error)}{hint}"


def _cause(error: BaseException) -> str:
    """What a client's error says, and what it comes from."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    cause = error.__cause__
    return said if cause is None or str(cause)[:50] in said else f"{said} ({_cause(cause)})"
