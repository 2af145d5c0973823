"""Fine-tuning as one call: a table of texts and labels in, a model and a report of what it learned out."""

from cutaway.tuning.fine_tuning import FineTuning, Outcome
from cutaway.tuning.labelled import Labelled, read

__all__ = ["FineTuning", "Labelled", "Outcome", "read"]
