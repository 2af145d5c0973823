"""One call of `Trainer.train`: what stands around its loop, from the model that it begins with to the metrics."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import nn

from cutaway.errors import ConfigError, InputError
from cutaway.train import saving
from cutaway.train.arguments import TrainingArguments
from cutaway.train.batch_size import Beginning, train_that_fits
from cutaway.train.batches import Batches
from cutaway.train.dataloader import EpochBatches, batches_of
from cutaway.train.loop import Loop
from cutaway.train.memory_tracker import MemoryTracker
from cutaway.train.neftune import noise
from cutaway.train.parameter_groups import ParameterAddresses
from cutaway.train.rng import set_seed
from cutaway.train.session import TrainingHooks, TrainingSession, Trial
from cutaway.train.signals import SignalStop
from cutaway.train.special_tokens import align_special_tokens
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.update_loss import training_objective

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

log = logging.getLogger("cutaway")


class TrainOutput(NamedTuple):
    """What `Trainer.train` gives; training_loss is the mean over all updates."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class RunHooks(TrainingHooks, Protocol):
    """What a run calls and sets, beside the hooks of its loop; `Trainer` is one such set of hooks."""

    model_init: Callable[..., nn.Module] | None
    model_wrapped: nn.Module
    is_in_train: bool
    _train_batch_size: int
    _signature_columns: list[str] | None

    def call_model_init(self, trial: Trial = None) -> nn.Module:
        """A fresh model."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches to train on."""

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Rows of an update, over all processes."""

    def add_callback(self, callback: object) -> None:
        """Add a callback."""

    def remove_callback(self, callback: object) -> None:
        """Remove it."""

    def _new_state(self) -> TrainerState: ...
    def _load_best_model(self) -> None: ...


class TrainingRun:
    """One call of train; it knows the session and the hooks, and no trainer.

    Args:
        resume: the checkpoint to go on from, a folder of them, or True for the newest one of output_dir.
        memory: what the memory was, for the metrics at the end.
    """

    def __init__(
        self,
        session: TrainingSession,
        hooks: RunHooks,
        resume: str | bool | None,
        ignore_keys_for_eval: list[str] | None,
        memory: MemoryTracker,
    ) -> None:
        self.session, self.hooks, self.memory = session, hooks, memory
        self.resume, self.ignore_keys_for_eval = resume, ignore_keys_for_eval

    def train(self) -> TrainOutput:
        """Train, with smaller batches where the memory does not suffice and the arguments ask for it."""
        return self._train_that_fits() if self.session.args.auto_find_batch_size else self._train()

    def _train_that_fits(self) -> TrainOutput:
        """`_train` with smaller batches where the memory does not suffice; a resume goes on with those it had."""
        session, hooks = self.session, self.hooks
        if session.ranks.size > 1:
            raise ConfigError("auto_find_batch_size is for one process: others would wait for the one whose memory "
                              "does not suffice. Set per_device_train_batch_size instead.")  # fmt: skip
        checkpoint = saving.choose(Path(session.args.output_dir), self.resume) if self.resume else None
        if checkpoint is not None:
            state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
            hooks._train_batch_size = state.train_batch_size
        kept = None if hooks.model_init is not None else session.model
        beginning = Beginning(kept, session.optimizer, session.lr_scheduler, session.callbacks)

        def train(size: int) -> TrainOutput:
            hooks._train_batch_size = size
            return self._train()

        return train_that_fits(train, hooks._train_batch_size, beginning, lambda: checkpoint is not None)

    def _train(self) -> TrainOutput:
        session, hooks = self.session, self.hooks
        with session.own_optimizer():
            batches = self._begin()
            hooks.is_in_train = True
            try:
                loop = Loop(session, hooks, batches, self._steps(batches), self.ignore_keys_for_eval)
                session.loop = loop
                self._run(loop)
            finally:
                hooks.is_in_train = False
                session.loop = None
                for callback in session.callbacks.all:
                    getattr(callback, "close", lambda: None)()
        metrics = {k: v for k, v in session.state.log_history[-1].items() if k != "step"}
        return TrainOutput(session.state.global_step, metrics["train_loss"], metrics)

    def _run(self, loop: Loop) -> None:
        """Run the loop, from its checkpoint on if it resumes, while nobody else writes into output_dir."""
        session, output = self.session, Path(self.session.args.output_dir)
        claim = saving.OutputClaim(output)
        session.ranks.on_first_rank(claim.take)
        try:
            checkpoint = session.ranks.on_first_rank(lambda: saving.begin(output, self.resume))
            if checkpoint is not None:
                loop.load(checkpoint)
            began, first = time.perf_counter(), session.state.global_step
            with self._listening(), noise(session.model, session.args.neftune_noise_alpha):
                loop.run()
            loop.leave()
            self._finish(began, first, loop.lost_by_all())
            session.tell("on_train_end")
        finally:
            claim.release()

    def _begin(self) -> EpochBatches:
        """Seed everything, make the model ready and a new state; the batches to train on."""
        session, hooks, args, ranks = self.session, self.hooks, self.session.args, self.session.ranks
        set_seed(args.seed)
        if hooks.model_init is not None:
            session.model = hooks.model_wrapped = hooks.call_model_init(session.trial).to(session.device)
            hooks._signature_columns = None
        if not ranks.first:
            set_seed(ranks.seed(args.seed))
        align_special_tokens(session.model, session.processing_class)
        loader = session.callbacks.train_dataloader = hooks.get_train_dataloader()
        batches = batches_of(loader, args.seed if args.data_seed is None else args.data_seed, ranks.size)
        session.objective = training_objective(session, batches.source if isinstance(batches, Batches) else None)
        self._prepare_model()
        session.state, session.control = hooks._new_state(), TrainerControl()
        session.flos = 0.0
        if args.match_upstream:
            log.warning("match_upstream: the losses of accumulated parts are added up as the upstream library does "
                        "it, so the loss and the gradients depend on how a batch is cut.")  # fmt: skip
        return batches

    def _prepare_model(self) -> None:
        """Make the model what the arguments say: what is frozen, what is computed twice."""
        session, args = self.session, self.session.args
        if args.freeze:
            ParameterAddresses(session.model).freeze(args.freeze)
        if session.optimizer is not None and (args.learning_rates or args.layer_lr_decay != 1.0):
            raise ConfigError("learning_rates and layer_lr_decay do not reach an optimizer of your own; leave one out.")
        if args.gradient_checkpointing:
            if not hasattr(session.model, "gradient_checkpointing_enable"):
                raise ConfigError(
                    f"gradient_checkpointing: {type(session.model).__name__} has no blocks to compute twice."
                )
            session.model.gradient_checkpointing_enable()
        if args.fsdp and session.optimizer is not None:
            raise ConfigError("fsdp splits the weights, so an optimizer made before holds others; override "
                              "create_optimizer instead.")  # fmt: skip
        if args.fsdp:
            session.ranks.shard(session.model, session.device)

    def _steps(self, batches: EpochBatches) -> int:
        args = self.session.args
        if args.max_steps > 0:
            return int(args.max_steps)
        if batches.count is None:
            raise InputError("rows without a known number need max_steps: nobody can tell how many steps an epoch has.")
        per_update = args.gradient_accumulation_steps * self.session.ranks.size
        updates: int = math.ceil(batches.count / per_update)
        return math.ceil(float(args.num_train_epochs) * updates)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Inside, a signal to one of several processes (or the only one, if asked) makes all save and leave."""
        several = self.session.ranks.size > 1
        alone = not several and not self.session.args.enable_jit_checkpoint
        if alone or any(isinstance(c, SignalStop) for c in self.session.callbacks.all):
            yield
            return
        stopping = SignalStop(patient=several)
        self.hooks.add_callback(stopping)
        try:
            with stopping.listening():
                yield
        finally:
            self.hooks.remove_callback(stopping)

    def _finish(self, began: float, first: int, lost: float) -> None:
        session, hooks, state = self.session, self.hooks, self.session.state
        seconds = max(time.perf_counter() - began, 1e-9)
        steps = state.global_step - first
        rows = steps * hooks.get_total_train_batch_size(session.args)
        if session.args.load_best_model_at_end and state.best_model_checkpoint is not None:
            hooks._load_best_model()
        session.model.eval()
        hooks.store_flos()
        hooks.log(
            {
                "train_runtime": seconds,
                "train_samples_per_second": rows / seconds,
                "train_steps_per_second": steps / seconds,
                "total_flos": state.total_flos,
                "train_loss": lost / max(1, state.global_step),
                **self.memory.metrics("train", "train"),
            }
        )
