"""Pipelines on byte-level vocabularies, decoders and encoder-decoders: the same answers as transformers'."""

from __future__ import annotations

import warnings

import pytest
import torch
from parity.pipes import checkpoints, same, upstream
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from cutaway.pipelines import pipeline

TEXTS = ["Hi there, Bob", "a", "the EU is trust worthy!", "é ü 😀"]
SIZES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}  # fmt: skip


def named(*labels):
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def bytes_between():
    """RoBERTa's kind of tokenizer: every byte a token, between <s> and </s>."""
    import transformers

    special = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate([*special.values(), *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special |= {"cls_token": "<s>", "sep_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special)


def saved(folder, head, config_class, **fields):
    import transformers

    torch.manual_seed(0)
    tokenizer = bytes_between()
    config = getattr(transformers, config_class)(vocab_size=len(tokenizer), max_position_embeddings=66, **fields)
    return checkpoints.save(folder, getattr(transformers, head)(config), tokenizer)


def roberta(folder, head, **fields):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return saved(folder, head, "RobertaConfig", initializer_range=0.6, **sizes, **fields)


def test_roberta_fills_gaps(tmp_path):
    folder = roberta(tmp_path, "RobertaForMaskedLM")
    texts = ["a <mask> b", "<mask>x <mask>"]
    same(pipeline("fill-mask", folder)(texts), upstream("fill-mask", folder)(texts))


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_roberta_labels_tokens(tmp_path, strategy):
    labels = named("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    folder = roberta(tmp_path, "RobertaForTokenClassification", num_labels=5, **labels)
    call = {"aggregation_strategy": strategy, "ignore_labels": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # upstream warns that its words are guessed from spaces
        theirs = upstream("ner", folder)(TEXTS, **call)
    ours = pipeline("ner", folder)(TEXTS, **call)
    for text, own, other in zip(TEXTS, ours, theirs, strict=True):
        for entity in other:  # upstream counts the space before a word to the word; ours are the word's own characters
            while entity["start"] < entity["end"] and text[entity["start"]].isspace():
                entity["start"] += 1
            while entity["start"] < entity["end"] and text[entity["end"] - 1].isspace():
                entity["end"] -= 1
        same(own, other)


def test_gpt2_vectors_and_labels_in_a_batch_without_a_padding_token(tmp_path):
    import transformers

    folder = checkpoints.decoder(tmp_path / "writer")
    same(pipeline("feature-extraction", folder)(TEXTS), upstream("feature-extraction", folder)(TEXTS))
    tokenizer = checkpoints.byte_level()
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64,
                                     initializer_range=0.5, num_labels=3)  # fmt: skip
    folder = checkpoints.save(tmp_path / "labels", transformers.GPT2ForSequenceClassification(config), tokenizer)
    same(pipeline("text-classification", folder)(TEXTS), upstream("text-classification", folder)(TEXTS))


def test_bart_entails_and_gives_vectors(tmp_path):
    labels = named("contradiction", "neutral", "entailment")
    folder = saved(tmp_path / "nli", "BartForSequenceClassification", "BartConfig", init_std=0.5, **SIZES, **labels)
    names = ["good", "x", "very bad"]
    task = "zero-shot-classification"
    same(pipeline(task, folder)(TEXTS, names), upstream(task, folder)(TEXTS, names))
    # spread less: with scores as sharp as above, rounding alone exceeds 1e-5 in a few of the numbers
    folder = saved(tmp_path / "base", "BartModel", "BartConfig", init_std=0.2, **SIZES)
    same(pipeline("feature-extraction", folder)(TEXTS), upstream("feature-extraction", folder)(TEXTS))
