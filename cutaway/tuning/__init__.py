"""Fine-tuning as one call: a table of texts and labels in, a model and a report of what it learned out."""

from cutaway.tuning.few_labels import FewLabels
from cutaway.tuning.few_shot import FewShotTrainer
from cutaway.tuning.fine_tuning import FineTuning, Outcome
from cutaway.tuning.labelled import Labelled, read
from cutaway.tuning.ranking_trainer import DataCollatorForRanking, RankingTrainer
from cutaway.tuning.search import search
from cutaway.tuning.sentence_trainer import DataCollatorForSentences, SentenceTrainer
from cutaway.tuning.task_rows import READINGS, TaskRows, read_task
from cutaway.tuning.task_tuning import TaskTuning
from cutaway.tuning.tasks import TaskOptions

__all__ = [
    "READINGS",
    "DataCollatorForRanking",
    "DataCollatorForSentences",
    "FewLabels",
    "FewShotTrainer",
    "FineTuning",
    "Labelled",
    "Outcome",
    "RankingTrainer",
    "SentenceTrainer",
    "TaskOptions",
    "TaskRows",
    "TaskTuning",
    "read",
    "read_task",
    "search",
]
