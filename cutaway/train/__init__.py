"""What a training loop needs around a model."""

from cutaway.train.collator import DataCollatorWithPadding
from cutaway.train.schedule import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup
from cutaway.train.seed import set_seed

__all__ = [
    "DataCollatorWithPadding",
    "get_constant_schedule_with_warmup",
    "get_linear_schedule_with_warmup",
    "set_seed",
]
