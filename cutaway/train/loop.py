"""The training itself: updates, what happens between them, and everything that a checkpoint must hold to go on."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cutaway.errors import CheckpointError, ConfigError
from cutaway.jsonfile import MEGABYTE, read_json
from cutaway.train import rng, saving
from cutaway.train.batches import RankBatch, moved
from cutaway.train.callback import best_value, bigger_is_better, states_of_format_2
from cutaway.train.dataloader import EpochBatches
from cutaway.train.ema import EMA
from cutaway.train.objective import added, summed, total
from cutaway.train.serialization import pack, read_tensors, unpack, write_tensors
from cutaway.train.session import BatchIterator, TrainingHooks, TrainingSession, Update
from cutaway.train.sharding import like
from cutaway.train.signals import SignalStop
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import SaveStrategy

log = logging.getLogger("cutaway")
_STATE, _REST, _TENSORS = "trainer_state.json", "training.json", "training.safetensors"
_VERSION = 3
_RESUMED = (
    "epoch", "global_step", "log_history", "best_metric", "best_global_step", "best_model_checkpoint", "total_flos",
    "num_input_tokens_seen",
)  # fmt: skip


class Loop:
    """One call of `Trainer.train`: it knows the session and the hooks, and no trainer.

    Attributes:
        epoch: the number of the epoch. done: how many of its batches are used.
        counted: how many batches the last whole epoch had, 0 before there was one.
        joint: the model as all ranks compute it together, from the first update on.
        per_update: of how many batches an update is made, over all ranks.
        lost: this rank's part of the sum of the losses of all updates; logged: that sum and their number, when it was
            last logged.
    """

    def __init__(
        self,
        session: TrainingSession,
        hooks: TrainingHooks,
        batches: EpochBatches,
        total: int,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> None:
        self.session, self.hooks, self.batches, self.ignore_keys_for_eval = (
            session,
            hooks,
            batches,
            ignore_keys_for_eval,
        )
        self.args, self.device, self.ranks = session.args, session.device, session.ranks
        self.model: nn.Module = session.model
        args, state = self.args, session.state
        state.max_steps, state.train_batch_size = total, batches.size
        state.logging_steps = args.steps("logging_steps", total)
        state.save_steps = args.steps("save_steps", total)
        state.eval_steps = args.steps("eval_steps", total) if args.eval_steps is not None else 0
        self.per_update = args.gradient_accumulation_steps * self.ranks.size
        if batches.count is not None:
            state.num_train_epochs = math.ceil(total / math.ceil(batches.count / self.per_update))
        hooks.create_optimizer_and_scheduler(num_training_steps=total)
        optimizer, schedule = session.optimizer, session.lr_scheduler
        if optimizer is None or schedule is None:
            raise ConfigError("create_optimizer_and_scheduler must set trainer.optimizer and trainer.lr_scheduler.")
        self.optimizer, self.schedule = optimizer, schedule
        self.joint: nn.Module | None = None
        self.average = EMA(self.model, args.ema_decay) if args.ema_decay else None
        self.epoch = self.done = self.counted = 0
        self.lost = torch.zeros((), dtype=torch.float64, device=self.device)
        self.not_numbers = torch.zeros((), dtype=torch.int64, device=self.device)
        self.logged = (0.0, 0)
        self.norm: Tensor | float | None = None
        self.rate = 0.0
        self.began = time.time()

    # -- the way through -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until the steps are made or a callback stops."""
        session, state = self.session, self.session.state
        self.model.train()
        self.optimizer.zero_grad()
        session.tell("on_train_begin")
        if self.args.eval_on_start and not state.global_step:
            self.hooks._evaluate(session.trial, self.ignore_keys_for_eval, skip_scheduler=True)
        while not (session.control.should_training_stop and self.done == 0) and state.max_steps > 0:
            if not session.control.should_training_stop:
                if self.done == 0:
                    session.tell("on_epoch_begin")
                session.control._new_epoch()
                self._run_epoch()
                if self.done == 0:
                    log.warning("the data ended after %d of %d steps.", state.global_step, state.max_steps)
                    break
            self._end_epoch()

    def leave(self) -> None:
        """Leave the weights that count in the model."""
        if self.average is not None:
            self.average.put(self.average.held)

    def _run_epoch(self) -> None:
        session, state, parts = self.session, self.session.state, self.args.gradient_accumulation_steps
        of_all = self.batches.count or self.counted or state.max_steps * self.per_update
        batches = BatchIterator(self.batches.turns(self.epoch, self.ranks, self.done), session.pending)
        while True:
            session.pending.clear()
            session.update = None
            samples, n_items = self.hooks.get_batch_samples(batches, parts, self.device)
            group = self._turns(samples)
            if not group:
                break
            session.tell("on_step_begin")
            self.step(group, n_items)
            self.done += sum(turn.held for turn in group)
            state.global_step += 1
            state.epoch = self.epoch + self.done / of_all
            session.tell("on_step_end")
            self._after()
            if session.control.should_training_stop or session.control.should_epoch_stop:
                return
        if self.done:  # a stream has told how long it is
            self.counted, state.epoch = self.done, float(self.epoch + 1)

    def _turns(self, samples: list[Any]) -> list[RankBatch]:
        """The turns of an update's batches; a hook may have made others of them."""
        pending = self.session.pending
        if len(samples) == len(pending):
            return [turn._replace(batch=batch) for turn, batch in zip(pending, samples, strict=True)]
        return [RankBatch(batch, True, self.ranks.size) for batch in samples]

    def _end_epoch(self) -> None:
        self.epoch, self.done = self.epoch + 1, 0
        self.session.tell("on_epoch_end")
        self._after()
        source = self.batches.source
        if getattr(source, "once", False) and self.session.state.global_step < self.session.state.max_steps:
            log.warning("the generator of training rows is used up; pass the function that makes it to go on.")
            self.session.control.should_training_stop = True

    def step(self, group: list[RankBatch], n_items: Tensor | int | None = None) -> None:
        """One update from the batches of `group`, everyone's, as if they were one batch."""
        session, hooks, ranks = self.session, self.hooks, self.ranks
        update = session.update
        if update is None or not update.fits([turn.batch for turn in group]):
            update = session.update = measure(session, group)
        if n_items is None:
            n_items = num_items(total(update.whole))
        elif len(update.whole) == 1 and float(n_items) != total(update.whole):
            update.whole = {"places": float(n_items)}  # a hook counts otherwise
        joint = self._join(group[0])
        for i, turn in enumerate(group):
            update.current, session.last_part = i, i == len(group) - 1
            session.backward_scale = (float(ranks.size) if turn.mine else 0.0) if ranks.size > 1 else 1.0
            with ranks.turn(joint, last=session.last_part):
                loss = hooks.training_step(joint, turn.batch, n_items)
            if turn.mine:
                self._add(loss)
            session.flos += float(hooks.floating_point_ops(turn.batch)) if turn.mine else 0.0
            hooks._track_num_input_tokens(turn.batch if turn.mine else {})
            if not session.last_part:
                session.tell("on_substep_end")
        session.backward_scale = 1.0
        norm = hooks._clip_grad_norm(joint) if self.args.max_grad_norm > 0 else None
        self.norm = hooks._get_grad_norm(joint, grad_norm=norm)
        self.rate = hooks._get_learning_rate()
        session.tell("on_pre_optimizer_step")
        self.optimizer.step()
        session.tell("on_optimizer_step")
        if not isinstance(self.schedule, ReduceLROnPlateau):  # that one steps by what an evaluation gives
            self.schedule.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()

    def _add(self, loss: Tensor) -> None:
        """Count a part's loss; one that is no number counts as the mean of those since the last log."""
        loss = loss.detach().to(self.device, torch.float64)
        if self.args.logging_nan_inf_filter:
            before, steps = self.logged
            fine = torch.isfinite(loss)
            mean = (self.lost - before / self.ranks.size) / (1 + self.session.state.global_step - steps)
            self.not_numbers += ~fine
            loss = loss.where(fine, mean)
        self.lost += loss

    @property
    def _called(self) -> nn.Module:
        """The model as all ranks compute it together; the model itself before the first update."""
        return self.model if self.joint is None else self.joint

    def _join(self, turn: RankBatch) -> nn.Module:
        """Before the first update: join the models of all ranks, which takes a look at a loss."""
        if self.joint is not None:
            return self.joint
        if self.session.objective is not None:
            self.session.objective.note_problem(turn.batch)
        joint = self.hooks._wrap_model(self.model)
        if self.ranks.size > 1 and not self.ranks.sharded:
            before = rng.capture()
            outputs = self.hooks.first_loss(joint, moved(turn.batch, self.device))
            rng.restore(before)
            joint = self.ranks.joint(joint, outputs, self.args.ddp_find_unused_parameters)
        self.joint = joint
        return joint

    def _after(self) -> None:
        """Log, evaluate and save, as far as it was asked for."""
        self._agree()
        self.hooks._maybe_log_save_evaluate(
            (self.lost - self.logged[0] / self.ranks.size).float(),
            self.norm,
            self._called,
            self.session.trial,
            self.epoch,
            self.ignore_keys_for_eval,
            self.began,
            learning_rate=self.rate,
        )

    def log_save_evaluate(self) -> None:
        """What `_maybe_log_save_evaluate` does unless it is overridden."""
        session, hooks, state = self.session, self.hooks, self.session.state
        before, steps = self.logged
        if session.control.should_log and state.global_step > steps:
            lost = self.lost_by_all()
            self.logged = (lost, state.global_step)
            logs: dict[str, Any] = {"loss": (lost - before) / (state.global_step - steps)}
            if self.norm is not None:
                logs["grad_norm"] = float(self.norm)
            logs["learning_rate"] = self.rate
            self._say_not_numbers(state.global_step - steps)
            hooks.store_flos()
            hooks.log(logs, self.began)
        session.control.should_log = False
        if session.control.should_evaluate:
            with self._shown():
                metrics = hooks._evaluate(session.trial, self.ignore_keys_for_eval)
            better = hooks._determine_best_metric(metrics, session.trial)
            if self.args.save_strategy == SaveStrategy.BEST and better:
                session.control.should_save = True
            self._agree()
        session.control.should_evaluate = False
        if session.control.should_save:
            session.control.should_save = False
            hooks._save_checkpoint(self._called, session.trial)
            if self.args.push_to_hub and self.args.hub_strategy != "end":
                session.tell("on_push_begin")
            session.tell("on_save")

    def _say_not_numbers(self, steps: int) -> None:
        n = int(self.not_numbers)
        if n:
            self.not_numbers.zero_()
            log.warning(
                "in the last %d steps, %d losses were no numbers; the logged loss leaves them out "
                "(logging_nan_inf_filter=False shows them). The weights may be no numbers either.", steps, n,
            )  # fmt: skip

    def lost_by_all(self) -> float:
        """The sum of the losses of all updates."""
        return self.ranks.sum([float(self.lost)])[0]

    def _agree(self) -> None:
        """What a callback, or a signal, asks for on one rank is done by all."""
        if self.ranks.size == 1:
            return
        control = self.session.control
        stops = [c for c in self.session.callbacks.all if isinstance(c, SignalStop)]
        names = [f.name for f in dataclasses.fields(control)]
        found = self.ranks.max([float(getattr(control, n)) for n in names] + [float(any(c.asked for c in stops))])
        for name, wanted in zip(names, found, strict=False):
            setattr(control, name, bool(wanted))
        for stop in stops:
            stop.asked = bool(found[-1])
            control.should_save = control.should_save or stop.asked

    def _shown(self) -> AbstractContextManager[dict[str, Tensor]]:
        """Inside, the model has the weights that count: the average, where there is one. Gives those that train."""
        return nullcontext({}) if self.average is None else self.average.shown()

    def judge(self, metrics: dict[str, Any]) -> bool:
        """Note whether this evaluation is the best; one that gives no number never is."""
        args, state = self.args, self.session.state
        if args.metric_for_best_model is None:
            return False
        value = best_value(args, metrics)
        best = state.best_metric
        if math.isnan(value):
            log.warning("%s is no number at step %d; it is not taken for the best.", args.metric_for_best_model,
                        state.global_step)  # fmt: skip
            return False
        if best is None or math.isnan(best) or (value > best if bigger_is_better(args) else value < best):
            state.best_metric, state.best_global_step = value, state.global_step
            return True
        return False

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write checkpoint-N, then remove what is over the limit."""
        output, state = Path(self.args.output_dir), self.session.state
        self.hooks.store_flos()
        before = state.best_model_checkpoint
        if state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(output / f"checkpoint-{state.global_step}")
        spared = state.best_model_checkpoint if self.args.load_best_model_at_end else None
        try:
            with self._shown() as training, self.ranks.gathered(self.model):
                rest = self._rest(training)

                def write() -> Path:
                    folder = saving.write(output, state.global_step, lambda aside: self._fill(aside, rest))
                    saving.rotate(output, self.args.save_total_limit, state.global_step, spared)
                    return folder

                return self.ranks.on_first_rank(write)
        except BaseException:
            state.best_model_checkpoint = before
            raise

    def _rest(self, training: dict[str, Tensor]) -> dict[str, Any]:
        """What a checkpoint holds beside the model and the state; `training`: the weights where an average is shown."""
        every = self.ranks.gather({"lost": float(self.lost), "chance": rng.capture()})
        rest: dict[str, Any] = {
            "format": _VERSION,
            "epoch": self.epoch,
            "done": self.done,
            "counted": self.counted,
            "plan": self._plan(),
            **every[0],
            "others": every[1:],  # of the other ranks
            "logged": self.logged,
            "stops": self.session.control.should_training_stop,
            "optimizer": self.optimizer.state_dict(),
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"},
            "weights": training,
            "callbacks": self.session.callbacks.state_dict(),
        }
        return self.ranks.whole(rest)  # type: ignore[no-any-return]

    def _fill(self, folder: Path, rest: dict[str, Any]) -> None:
        self.hooks.save_model(str(folder), _internal_call=True)
        _write(folder / _STATE, pack(self.session.state.to_dict(), {}, "state"))
        _write(folder / "training_args.json", self.args.to_dict())
        if self.args.save_only_model:
            return
        tensors: dict[str, Tensor] = {}
        _write(folder / _REST, pack(rest, tensors, "training"))
        write_tensors(folder / _TENSORS, tensors)

    def _plan(self) -> dict[str, Any]:
        """What must be equal for the batches to be the same ones."""
        batches = self.batches
        source = batches.source
        return {
            "rows": len(source) if hasattr(source, "__len__") else None,
            "per_device_train_batch_size": batches.size,
            "gradient_accumulation_steps": self.per_update,
            "data_seed": batches.seed,
            "train_sampling_strategy": self.args.train_sampling_strategy,
            "dataloader_drop_last": batches.drop_last,
            "per_device_train_batch_tokens": self.args.per_device_train_batch_tokens,
            "the length of each row (SHA-256)": batches.plan.digest() if batches.plan else None,
        }

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint, bit by bit where it stopped.

        Raises:
            CheckpointError: it is of another model, or its data was cut into other batches.
        """
        session = self.session
        if not (folder / _REST).exists():
            raise CheckpointError(
                f"{folder} holds the model alone (save_only_model=True), so nothing can be resumed from it; load "
                "it with from_pretrained and train anew."
            )
        rest = unpack(_read(folder / _REST), read_tensors(folder / _TENSORS))
        if rest["format"] == 2:  # the callbacks' states apart, it is the format of today
            rest["callbacks"] = states_of_format_2(rest["callbacks"])
        elif rest["format"] != _VERSION:
            raise CheckpointError(f"{folder} has the format {rest['format']}; this version reads 2 and {_VERSION}.")
        every = [{"lost": rest["lost"], "chance": rest["chance"]}, *rest.get("others", [])]
        self._same_updates(folder, rest["plan"]["gradient_accumulation_steps"], len(every))
        for name, value in self._plan().items():
            if rest["plan"].get(name) != value:
                raise CheckpointError(
                    f"{folder} was trained with {name} = {rest['plan'].get(name)!r}, now it is {value!r}: the batches "
                    "would not be the same. Set it back, or load the weights with from_pretrained and train anew."
                )
        self.hooks._load_from_checkpoint(str(folder), self.model)
        if (self.average is None) != (not rest["weights"]):
            raise CheckpointError(
                f"{folder} was trained {'with' if rest['weights'] else 'without'} ema_decay; set it so."
            )
        if self.average is not None:
            self.average.held = self.average.now()
            self.average.put(rest["weights"])
        rates = [group["initial_lr"] for group in self.optimizer.param_groups if "initial_lr" in group]
        self.optimizer.load_state_dict(self._placed(rest["optimizer"]))
        before = [group["initial_lr"] for group in self.optimizer.param_groups if "initial_lr" in group]
        if rates != before:
            log.warning(
                "%s was trained with the learning rate %s, which goes on; the %s of the arguments is not used. "
                "To change it, load the weights with from_pretrained and train anew.",
                folder, _list(before), _list(rates),
            )  # fmt: skip
        self.schedule.load_state_dict({**self.schedule.state_dict(), **rest["schedule"]})
        stored, state = TrainerState.from_dict(unpack(_read(folder / _STATE), {})), session.state
        for name in _RESUMED:
            setattr(state, name, getattr(stored, name))
        self.epoch, self.done, self.counted = rest["epoch"], rest["done"], rest["counted"]
        same = len(every) == self.ranks.size
        mine = every[self.ranks.rank]["lost"] if same else sum(one["lost"] for one in every) * self.ranks.first
        self.lost.fill_(mine)
        self.logged = rest["logged"]
        session.control = TrainerControl(should_training_stop=rest["stops"] and self._stays_stopped(stored))
        session.callbacks.load_state_dict(rest["callbacks"], bool(self.args.restore_callback_states_from_checkpoint))
        if self.ranks.rank < len(every):
            rng.restore(every[self.ranks.rank]["chance"])

    def _same_updates(self, folder: Path, before: int, ranks: int) -> None:
        """Whether the training of a checkpoint, by `ranks` processes with `before` batches an update, can go on here.

        Raises:
            CheckpointError: an update would be of other batches.
        """
        now = self.ranks.size
        if ranks == now:
            return
        if before != self.per_update:
            way = f"gradient_accumulation_steps={before // now}" if before % now == 0 else f"{ranks} processes"
            raise CheckpointError(
                f"{folder} was trained by {ranks} processes with {before} batches an update; {now} with "
                f"gradient_accumulation_steps={self.args.gradient_accumulation_steps} make it {self.per_update}, and "
                f"the updates would not be the same. Resume with {way}."
            )
        log.warning(
            "%s was trained by %d processes, now by %d: the updates are of the same batches, but their random numbers "
            "(dropout) are drawn by other processes, so the weights are those of the other training only without.",
            folder, ranks, now,
        )  # fmt: skip

    def _placed(self, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The state of an optimizer, split as the weights are."""
        if not self.ranks.sharded:
            return optimizer
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        state = {
            i: {name: like(weights[i], v) if isinstance(v, Tensor) else v for name, v in held.items()}
            for i, held in optimizer["state"].items()
        }
        return {**optimizer, "state": state}

    def _stays_stopped(self, stored: TrainerState) -> bool:
        """A training that had made all its steps goes on if it is now to make more."""
        return stored.global_step < stored.max_steps or self.session.state.max_steps <= stored.max_steps


def measure(session: TrainingSession, group: list[RankBatch]) -> Update:
    """How much the parts of an update hold, and the whole of it over all ranks."""
    assert session.objective is not None
    sizes = [session.objective.sizes(turn.batch) for turn in group]
    whole = added([own for own, turn in zip(sizes, group, strict=True) if turn.mine])
    parts = sum(turn.held for turn in group)
    return Update([turn.batch for turn in group], sizes, summed(whole, session.ranks), parts)


def num_items(n: float) -> int | Tensor:
    """`num_items_in_batch` in upstream's types: `n` labelled places; class weights make it a fraction."""
    return int(n) if n.is_integer() else torch.tensor(n, dtype=torch.float64)


def _list(rates: list[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in dict.fromkeys(rates))


def _write(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, CheckpointError, max_bytes=1024 * MEGABYTE, max_values=100_000_000)
