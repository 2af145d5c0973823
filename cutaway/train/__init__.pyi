# Written by `python tests/stubs.py --write` from the table of names in __init__.py: change that one.
from cutaway.train.adafactor import Adafactor, get_adafactor_schedule
from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import DefaultFlowCallback, EarlyStoppingCallback, TrainerCallback
from cutaway.train.collator import DataCollatorWithPadding, DefaultDataCollator, default_data_collator
from cutaway.train.evaluation import EvalPrediction, PredictionOutput
from cutaway.train.label_collators import (
    DataCollatorForMultipleChoice,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithFlattening,
)
from cutaway.train.masking import DataCollatorForLanguageModeling, DataCollatorForWholeWordMask
from cutaway.train.permutation import DataCollatorForPermutationLanguageModeling
from cutaway.train.progress import PrinterCallback, ProgressCallback
from cutaway.train.rng import set_seed
from cutaway.train.schedule import (
    get_constant_schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_hard_restarts_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
    get_reduce_on_plateau_schedule,
    get_scheduler,
    get_wsd_schedule,
)
from cutaway.train.seq2seq import Seq2SeqTrainer, Seq2SeqTrainingArguments
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import IntervalStrategy, SaveStrategy, SchedulerType
from cutaway.train.trainer import Trainer
from cutaway.train.training_run import TrainOutput

__all__ = [
    "Adafactor",
    "DataCollatorForLanguageModeling",
    "DataCollatorForMultipleChoice",
    "DataCollatorForPermutationLanguageModeling",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithFlattening",
    "DataCollatorWithPadding",
    "DefaultDataCollator",
    "DefaultFlowCallback",
    "EarlyStoppingCallback",
    "EvalPrediction",
    "IntervalStrategy",
    "PredictionOutput",
    "PrinterCallback",
    "ProgressCallback",
    "SaveStrategy",
    "SchedulerType",
    "Seq2SeqTrainer",
    "Seq2SeqTrainingArguments",
    "TrainOutput",
    "Trainer",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
    "TrainingArguments",
    "default_data_collator",
    "get_adafactor_schedule",
    "get_constant_schedule",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_cosine_with_hard_restarts_schedule_with_warmup",
    "get_cosine_with_min_lr_schedule_with_warmup",
    "get_cosine_with_min_lr_schedule_with_warmup_lr_rate",
    "get_inverse_sqrt_schedule",
    "get_linear_schedule_with_warmup",
    "get_polynomial_decay_schedule_with_warmup",
    "get_reduce_on_plateau_schedule",
    "get_scheduler",
    "get_wsd_schedule",
    "set_seed",
]
