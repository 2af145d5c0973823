"""How good a model is at its task: measures with intervals, calibration, and two models side by side."""

from cutaway.evaluate.comparison import Comparison, compare
from cutaway.evaluate.evaluation import Evaluation, evaluate

__all__ = ["Comparison", "Evaluation", "compare", "evaluate"]
