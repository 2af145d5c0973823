"""`args.set_training(...)` and the like: several settings of one kind at once."""

from __future__ import annotations

from typing import Self


class ArgumentSetters:
    """The part of `TrainingArguments` that sets several settings and checks them again; each returns the arguments."""

    def _put(self, **settings: object) -> Self:
        for name, value in settings.items():
            setattr(self, name, value)
        self.__post_init__()  # type: ignore[attr-defined]
        return self

    def set_training(
        self,
        learning_rate: float = 5e-5,
        batch_size: int = 8,
        weight_decay: float = 0,
        num_epochs: float = 3,
        max_steps: int = -1,
        gradient_accumulation_steps: int = 1,
        seed: int = 42,
        gradient_checkpointing: bool = False,
    ) -> Self:
        """How the weights are trained."""
        return self._put(
            do_train=True,
            learning_rate=learning_rate,
            per_device_train_batch_size=batch_size,
            weight_decay=weight_decay,
            num_train_epochs=num_epochs,
            max_steps=max_steps,
            gradient_accumulation_steps=gradient_accumulation_steps,
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
        )

    def set_evaluate(
        self,
        strategy: str = "no",
        steps: int = 500,
        batch_size: int = 8,
        accumulation_steps: int | None = None,
        delay: float | None = None,
        loss_only: bool = False,
    ) -> Self:
        """When the model is evaluated."""
        return self._put(
            eval_strategy=strategy,
            eval_steps=steps,
            per_device_eval_batch_size=batch_size,
            eval_accumulation_steps=accumulation_steps,
            eval_delay=0 if delay is None else delay,
            prediction_loss_only=loss_only,
        )

    def set_testing(self, batch_size: int = 8, loss_only: bool = False) -> Self:
        """How the model is tested."""
        return self._put(do_predict=True, per_device_eval_batch_size=batch_size, prediction_loss_only=loss_only)

    def set_save(self, strategy: str = "steps", steps: int = 500, total_limit: int | None = None) -> Self:
        """When a checkpoint is written."""
        return self._put(save_strategy=strategy, save_steps=steps, save_total_limit=total_limit)

    def set_logging(
        self,
        strategy: str = "steps",
        steps: int = 500,
        report_to: object = "none",
        first_step: bool = False,
        **others: object,
    ) -> Self:
        """What is said on the way."""
        return self._put(
            logging_strategy=strategy, logging_steps=steps, report_to=report_to, logging_first_step=first_step, **others
        )

    def set_optimizer(
        self,
        name: str = "adamw_torch",
        learning_rate: float = 5e-5,
        weight_decay: float = 0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        args: str | None = None,
    ) -> Self:
        """The optimizer."""
        return self._put(
            optim=name,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            adam_beta1=beta1,
            adam_beta2=beta2,
            adam_epsilon=epsilon,
            optim_args=args,
        )

    def set_lr_scheduler(
        self,
        name: str = "linear",
        num_epochs: float = 3.0,
        max_steps: int = -1,
        warmup_steps: float = 0,
        warmup_ratio: float = 0.0,
    ) -> Self:
        """How the learning rate goes."""
        return self._put(
            lr_scheduler_type=name,
            num_train_epochs=num_epochs,
            max_steps=max_steps,
            warmup_steps=warmup_steps,
            warmup_ratio=warmup_ratio,
        )
