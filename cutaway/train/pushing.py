"""A training on the hub: its model after each save, and everything at the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cutaway.errors import HubError
from cutaway.hub.upload import made_repository, upload
from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import TrainerCallback
from cutaway.train.session import TrainingSession
from cutaway.train.state import TrainerControl, TrainerState

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

log = logging.getLogger("cutaway")

# what a checkpoint holds to go on with, beside the model
_REST = ("training.json", "training.safetensors", "training_args.json", "trainer_state.json", "manifest.json")


def push(session: TrainingSession, commit_message: str, token: str | None, revision: str | None) -> CommitInfo:
    """Upload output_dir, but for its checkpoints; see `Trainer.push_to_hub`."""
    args, output = session.args, Path(session.args.output_dir)
    return session.ranks.on_first_rank(
        lambda: upload(
            output,
            name_of(args),
            private=args.hub_private_repo,
            token=token or args.hub_token,
            revision=revision,
            ignore=("checkpoint-*", ".checkpoint-*", ".*.lock", ".cutaway-sav*", "_*"),
            commit_message=commit_message,
        )
    )


class Pushes(TrainerCallback):
    """Uploads the model of each checkpoint. That the hub fails in between is said, and stops no training."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Makes the repository: what cannot be uploaded is to be known before the training."""
        made_repository(name_of(args), args.hub_private_repo, args.hub_token)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Uploads, unless only the end is wanted."""
        if args.hub_strategy == "end":
            return
        try:
            upload(
                Path(args.output_dir) / f"checkpoint-{state.global_step}",
                name_of(args),
                token=args.hub_token,
                ignore=_REST,
                commit_message=f"Training in progress, step {state.global_step}",
            )
        except HubError as error:
            log.warning("step %d is not on the hub: %s", state.global_step, error)


def name_of(args: TrainingArguments) -> str:
    """The repository of a training."""
    return args.hub_model_id or Path(args.output_dir).resolve().name
