"""Fine-tuning as one call: a table of texts and labels in, a model and a report of what it learned out."""

from cutaway.tuning.fine_tuning import FineTuning, Outcome
from cutaway.tuning.labelled import Labelled, read
from cutaway.tuning.search import search

__all__ = ["FineTuning", "Labelled", "Outcome", "read", "search"]
