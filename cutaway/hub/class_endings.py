"""How a published class name ends: the task it is for, and the class that loads it.

config.json names the class that a checkpoint was saved from (`"architectures": ["BertForMaskedLM"]`); nothing
else in it says what the checkpoint is for.
"""

from __future__ import annotations

from typing import NamedTuple


class Ending(NamedTuple):
    """The task of a model whose class ends so, and the name of the class that loads it."""

    task: str
    auto: str


# the base model's comes last: other names may end so as well
CLASS_ENDINGS = {
    "ForSequenceClassification": Ending("text-classification", "AutoModelForSequenceClassification"),
    "ForTokenClassification": Ending("token-classification", "AutoModelForTokenClassification"),
    "ForQuestionAnswering": Ending("question-answering", "AutoModelForQuestionAnswering"),
    "ForQuestionAnsweringSimple": Ending("question-answering", "AutoModelForQuestionAnswering"),
    "ForMultipleChoice": Ending("multiple-choice", "AutoModelForMultipleChoice"),
    "ForMaskedLM": Ending("fill-mask", "AutoModelForMaskedLM"),
    "ForCausalLM": Ending("text-generation", "AutoModelForCausalLM"),
    "LMHeadModel": Ending("text-generation", "AutoModelForCausalLM"),
    "ForConditionalGeneration": Ending("text2text-generation", "AutoModelForSeq2SeqLM"),
    "MTModel": Ending("text2text-generation", "AutoModelForSeq2SeqLM"),
    "Model": Ending("feature-extraction", "AutoModel"),
}


def ending_of(class_name: str) -> Ending | None:
    """What the end of a class name says; None for a class of another kind."""
    return next((entry for end, entry in CLASS_ENDINGS.items() if class_name.endswith(end)), None)
