"""Tiny random checkpoints, made with transformers: no training, no download."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

TEXT = "i believe that the eu is trust great bad film a good one not very was and it . , ! $ < > ab cd"
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def wordpiece():
    """A BERT tokenizer with a small vocabulary: words, letters, and pieces of them."""
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["##worthy", *(f"##{c}" for c in letters)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *WORDS, *letters, *pieces]))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    backend.decoder = decoders.WordPiece(prefix="##")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", model_max_length=64, **names)
    wrapped.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return wrapped


def save(folder: Path, model, tokenizer) -> Path:
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classifier(folder: Path, labels: int = 3, head: str = "BertForSequenceClassification", **config) -> Path:
    """A BERT of 2 layers and 4 heads under the given head."""
    import transformers

    torch.manual_seed(0)
    tokenizer = wordpiece()
    settings = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.6,
        num_labels=labels,
        **config,
    )
    return save(folder, getattr(transformers, head)(settings), tokenizer)


def byte_level():
    """A byte-level BPE tokenizer without merges: every byte is a token."""
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end)


def decoder(folder: Path) -> Path:
    """A GPT-2 of 2 layers and 2 heads."""
    import transformers

    torch.manual_seed(0)
    tokenizer = byte_level()
    settings = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return save(folder, transformers.GPT2LMHeadModel(settings), tokenizer)


def encoder_decoder(folder: Path) -> Path:
    """A T5 of 2 + 2 layers and 4 heads, over the small WordPiece vocabulary."""
    import transformers

    torch.manual_seed(0)
    tokenizer = wordpiece()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    settings = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=3,
    )  # fmt: skip
    return save(folder, transformers.T5ForConditionalGeneration(settings), tokenizer)


def of_each_kind(folder: Path) -> dict[str, str]:
    """The folders of five models under `folder`: what a command may be given."""
    return {
        "encoder": str(classifier(folder / "encoder", 2, id2label={0: "NEGATIVE", 1: "POSITIVE"})),
        "base": str(classifier(folder / "base", head="BertModel")),
        "mask": str(classifier(folder / "mask", head="BertForMaskedLM")),
        "decoder": str(decoder(folder / "decoder")),
        "t5": str(encoder_decoder(folder / "t5")),
    }
