# Written by `python tests/stubs.py --write` from the table of names in __init__.py: change that one.
from cutaway.train.arguments import TrainingArguments
from cutaway.train.callback import EarlyStoppingCallback, TrainerCallback
from cutaway.train.collator import DataCollatorWithPadding, default_data_collator
from cutaway.train.evaluation import EvalPrediction, PredictionOutput
from cutaway.train.label_collators import (
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithFlattening,
)
from cutaway.train.masking import DataCollatorForLanguageModeling
from cutaway.train.progress import ProgressCallback
from cutaway.train.rng import set_seed
from cutaway.train.schedule import (
    get_constant_schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)
from cutaway.train.state import TrainerControl, TrainerState
from cutaway.train.strategy import IntervalStrategy, SaveStrategy
from cutaway.train.trainer import Trainer, TrainOutput

__all__ = [
    "DataCollatorForLanguageModeling",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorWithFlattening",
    "DataCollatorWithPadding",
    "EarlyStoppingCallback",
    "EvalPrediction",
    "IntervalStrategy",
    "PredictionOutput",
    "ProgressCallback",
    "SaveStrategy",
    "TrainOutput",
    "Trainer",
    "TrainerCallback",
    "TrainerControl",
    "TrainerState",
    "TrainingArguments",
    "default_data_collator",
    "get_constant_schedule",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_linear_schedule_with_warmup",
    "set_seed",
]
