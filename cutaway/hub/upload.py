"""What is saved in a folder goes to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cutaway.errors import HubError
from cutaway.hub.files import offline

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

Given = TypeVar("Given")


class Publishing:
    """What has `save_pretrained` can be pushed."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload by cutaway",
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **settings: object,
    ) -> CommitInfo:
        """Upload what `save_pretrained` writes to the repository `repo_id`, which is made where it is not there.

        Args:
            private: whether a repository that is made is private. token: by default that of `hf auth login`.
            revision: a branch, made if needed. create_pr: propose it instead.
            settings: of `save_pretrained`.

        Returns:
            huggingface_hub's CommitInfo.

        Raises:
            HubError: the hub cannot be reached, or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            saved: Any = self
            saved.save_pretrained(folder, **settings)
            return upload(
                Path(folder),
                repo_id,
                commit_message=commit_message,
                commit_description=commit_description,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    ignore: Sequence[str] = (),
    **commit: object,
) -> CommitInfo:
    """Upload the files of `folder` but those that the patterns of `ignore` name; arguments as in `push_to_hub`."""
    return _asked(repo_id, lambda: _upload(folder, repo_id, private, token, revision, ignore, commit))


def made_repository(repo_id: str, private: bool | None, token: str | bool | None) -> str:
    """The whole name of the repository, made where it is not there.

    Raises:
        HubError: the hub cannot be reached, or refuses.
    """
    return _asked(repo_id, lambda: _api(token).create_repo(repo_id, private=private, exist_ok=True).repo_id)


def _upload(
    folder: Path,
    repo_id: str,
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    ignore: Sequence[str],
    commit: dict[str, Any],
) -> CommitInfo:
    api = _api(token)
    whole = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and revision != "main":
        api.create_branch(whole, branch=revision, exist_ok=True)
    done: CommitInfo = api.upload_folder(
        repo_id=whole, folder_path=folder, revision=revision, ignore_patterns=list(ignore) or None, **commit
    )
    return done


def _api(token: str | bool | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="cutaway")


def _asked(repo_id: str, work: Callable[[], Given]) -> Given:
    """What `work` gives; HubError where the hub does not give it."""
    if offline():
        raise HubError(f"{repo_id!r} cannot be uploaded while HF_HUB_OFFLINE is set; unset it, or save to a folder.")
    try:
        return work()
    except Exception as e:  # whatever the client, the connection or the hub has to say
        why = " ".join(str(e).split())[:300] or type(e).__name__
        raise HubError(
            f"{repo_id!r} cannot be uploaded: {why} Log in with `hf auth login` or pass token=; what is saved in a "
            "folder can be uploaded later with `hf upload`."
        ) from e


PushToHubMixin = Publishing  # upstream's name
