"""The names that other people's scripts use: a rename or a removal fails here; an addition does not."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from cutaway import train

FIELDS = {
    "TrainingArguments": """
        adam_beta1 adam_beta2 adam_epsilon batch_eval_metrics bf16 class_weights data_seed dataloader_drop_last
        dataloader_num_workers disable_tqdm ema_decay eval_delay eval_on_start eval_steps eval_strategy freeze fsdp
        gradient_accumulation_steps gradient_checkpointing greater_is_better label_names label_smoothing_factor
        layer_lr_decay learning_rate learning_rates length_column_name load_best_model_at_end logging_first_step
        logging_steps logging_strategy lr_scheduler_type match_upstream max_grad_norm max_steps metric_for_best_model
        num_train_epochs optim output_dir per_device_eval_batch_size per_device_train_batch_size
        per_device_train_batch_tokens prediction_loss_only remove_unused_columns resume_from_checkpoint save_steps
        save_strategy save_total_limit seed train_sampling_strategy use_cpu warmup_ratio warmup_steps weight_decay
        logging_dir project report_to run_name push_to_hub hub_model_id hub_strategy hub_token hub_private_repo
        ddp_timeout ddp_find_unused_parameters
    """,
    "Trainer": """
        add_callback compute_loss create_model_card create_optimizer evaluate hyperparameter_search
        is_world_process_zero log log_metrics predict push_to_hub remove_callback save_metrics save_model save_state
        tokenizer train
    """,
    "TrainerCallback": """
        load_state_dict on_epoch_begin on_epoch_end on_evaluate on_init_end on_log on_optimizer_step
        on_pre_optimizer_step on_predict on_prediction_step on_save on_step_begin on_step_end on_substep_end
        on_train_begin on_train_end state_dict
    """,
    "TrainerControl": """
        should_epoch_stop should_evaluate should_log should_save should_training_stop
    """,
    "TrainerState": """
        best_global_step best_metric best_model_checkpoint epoch eval_steps global_step is_local_process_zero
        is_world_process_zero log_history logging_steps max_steps num_train_epochs save_steps train_batch_size
    """,
}
# in their order, since they may be given by position
PARAMETERS = {
    "DataCollatorForLanguageModeling": """
        tokenizer mlm whole_word_mask mlm_probability mask_replace_prob random_replace_prob pad_to_multiple_of
        return_tensors seed
    """,
    "DataCollatorForSeq2Seq": "tokenizer model padding max_length pad_to_multiple_of label_pad_token_id return_tensors",
    "DataCollatorForTokenClassification": """
        tokenizer padding max_length pad_to_multiple_of label_pad_token_id return_tensors
    """,
    "DataCollatorWithFlattening": "return_tensors",
    "DataCollatorWithPadding": "tokenizer padding max_length pad_to_multiple_of return_tensors",
    "EarlyStoppingCallback": "early_stopping_patience early_stopping_threshold",
    "Trainer": """
        model args data_collator train_dataset eval_dataset processing_class model_init compute_loss_func
        compute_metrics callbacks optimizers optimizer_cls_and_kwargs preprocess_logits_for_metrics tokenizer
    """,
    "default_data_collator": "features return_tensors",
    "get_constant_schedule": "optimizer last_epoch",
    "get_constant_schedule_with_warmup": "optimizer num_warmup_steps last_epoch",
    "get_cosine_schedule_with_warmup": "optimizer num_warmup_steps num_training_steps num_cycles last_epoch",
    "get_linear_schedule_with_warmup": "optimizer num_warmup_steps num_training_steps last_epoch",
    "set_seed": "seed",
    "Trainer.train": "resume_from_checkpoint",
    "Trainer.hyperparameter_search": "hp_space compute_objective n_trials direction backend",
    "Trainer.create_model_card": """
        language license tags model_name finetuned_from tasks dataset_tags dataset dataset_args
    """,
    "Trainer.evaluate": "eval_dataset ignore_keys metric_key_prefix",
    "Trainer.predict": "test_dataset ignore_keys metric_key_prefix",
    "Trainer.push_to_hub": "commit_message blocking token revision",
    "Trainer.save_model": "output_dir",
    "Trainer.log": "logs",
    "Trainer.add_callback": "callback",
    "Trainer.remove_callback": "callback",
    "Trainer.compute_loss": "model inputs return_outputs",
    "Trainer.create_optimizer": "",
}
ALL = """
DataCollatorForLanguageModeling DataCollatorForSeq2Seq DataCollatorForTokenClassification
DataCollatorWithFlattening DataCollatorWithPadding EarlyStoppingCallback EvalPrediction IntervalStrategy
PredictionOutput ProgressCallback SaveStrategy TrainOutput Trainer TrainerCallback TrainerControl TrainerState
TrainingArguments default_data_collator get_constant_schedule get_constant_schedule_with_warmup
get_cosine_schedule_with_warmup get_linear_schedule_with_warmup set_seed
"""


def test_every_public_name_is_there():
    assert set(ALL.split()) <= set(train.__all__)
    assert all(hasattr(train, name) for name in train.__all__)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_and_methods_keep_their_names(name):
    kind = getattr(train, name)
    fields = {entry.name for entry in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    assert set(FIELDS[name].split()) <= fields | set(dir(kind))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_keep_their_names_and_order(name):
    owner, _, method = name.partition(".")
    found = getattr(train, owner)
    parameters = inspect.signature(getattr(found, method) if method else found).parameters
    known = PARAMETERS[name].split()
    assert [parameter for parameter in parameters if parameter in known] == known
