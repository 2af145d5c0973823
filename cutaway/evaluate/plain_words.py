"""Every measure in one sentence of plain words."""

from __future__ import annotations

SENTENCES: dict[str, str] = {
    "accuracy": "The share of rows with the right label.",
    "macro_f1": "F1 of each label, then their mean: rare labels count as much as frequent ones.",
    "micro_f1": "F1 over all labels of all rows together: frequent labels count more.",
    "exact": "The share of rows in which every label is right and none is missing.",
    "cross_entropy": "How surprised the model is by the right labels (0 is never; confident mistakes cost most).",
    "brier": "The squared distance of the probabilities from the truth: 0 is perfect, 2 the worst.",
    "ece": "Expected calibration error: how far probabilities are, on average, from how often the answers are right.",
    "mean_absolute_error": "How far the number said is from the right one, on average, in the labels' own unit.",
    "rmse": "As the mean error, but large errors count more: the root of the mean square.",
    "pearson": "How well the numbers rise and fall with the right ones: 1 in step, 0 not at all, -1 opposite.",
    "precision": "Of what the model found, the share that is right.",
    "recall": "Of what there is to find, the share that the model found.",
    "f1": "Precision and recall in one number (their harmonic mean): high only where both are.",
    "exact_match": "The share of answers that equal a right one, articles and punctuation aside.",
    "rouge1": "Words that the answer shares with the right text.",
    "rouge2": "Pairs of neighbouring words that the answer shares with the right text.",
    "rougeL": "The longest sequence of words that both texts have in order.",
    "bleu": "Sequences of one to four words that the answers share with the right texts, from 0 to 100.",
    "chrf": "Sequences of letters that the answers share with the right texts, from 0 to 100.",
    "perplexity": "Among how many equally likely tokens the model seems to choose: lower is better, 1 is certain.",
    "accuracy_at_1": "The share of queries whose right text comes first.",
    "mrr_at_10": "One divided by the place of the first right text, from 1 (first) to 0 (not among ten), on average.",
    "ndcg_at_10": "How far up the right texts stand among the first ten: 1 at the top, 0 not among them.",
    "recall_at_10": "The share of queries whose right text is among the first ten.",
    "triplet_accuracy": "The share of rows whose first text is nearer to the right one than to the wrong one.",
    "spearman": "How well the order of the similarities follows that of the right scores: 1 the same, 0 none.",
    "loss": "The mean surprise at a token of the texts, in nats: the logarithm of the perplexity.",
}


def sentence(measure: str) -> str:
    """What a measure says; "" for one that is not known."""
    return SENTENCES.get(measure, "")
