"""Which tokenizer class a checkpoint's files name, and `load_tokenizer`, which makes it.

A tokenizer.json is a complete description and is followed to the letter. Where there is none, each family builds its
pipeline from its vocabulary files. Which class a checkpoint names is looked up in a table; nothing it names is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cutaway.errors import TokenizerError, nearest
from cutaway.tokenization.base import PreTrainedTokenizerFast
from cutaway.tokenization.byte_level_bpe import (
    BartTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    Qwen2Tokenizer,
    RobertaTokenizer,
)
from cutaway.tokenization.byte_tokens import ByT5Tokenizer
from cutaway.tokenization.loading import load
from cutaway.tokenization.many_languages import M2M100Tokenizer, NllbTokenizer
from cutaway.tokenization.sentencepiece_bpe import GemmaTokenizer, LlamaTokenizer
from cutaway.tokenization.translation import MarianTokenizer, MBartTokenizer
from cutaway.tokenization.unigram import (
    AlbertTokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    PegasusTokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
)
from cutaway.tokenization.wordpiece import BertTokenizer, DistilBertTokenizer, ElectraTokenizer, MPNetTokenizer

__all__ = ["load_tokenizer"]

_CLASSES: dict[str, type[PreTrainedTokenizerFast]] = {
    "BertTokenizer": BertTokenizer,
    "DistilBertTokenizer": DistilBertTokenizer,
    "RobertaTokenizer": RobertaTokenizer,
    "BartTokenizer": BartTokenizer,
    "GPT2Tokenizer": GPT2Tokenizer,
    "LlamaTokenizer": LlamaTokenizer,
    "T5Tokenizer": T5Tokenizer,
    "ElectraTokenizer": ElectraTokenizer,
    "AlbertTokenizer": AlbertTokenizer,
    "MPNetTokenizer": MPNetTokenizer,
    "XLMRobertaTokenizer": XLMRobertaTokenizer,
    "MarianTokenizer": MarianTokenizer,
    "Qwen2Tokenizer": Qwen2Tokenizer,
    "GPTNeoXTokenizer": GPTNeoXTokenizer,
    "GemmaTokenizer": GemmaTokenizer,
    "PegasusTokenizer": PegasusTokenizer,
    "MBartTokenizer": MBartTokenizer,
    "DebertaV2Tokenizer": DebertaV2Tokenizer,
    "CamembertTokenizer": CamembertTokenizer,
    "M2M100Tokenizer": M2M100Tokenizer,
    "NllbTokenizer": NllbTokenizer,
    "ByT5Tokenizer": ByT5Tokenizer,
}
_MODEL_TYPES: dict[str, type[PreTrainedTokenizerFast]] = {
    "bert": BertTokenizer,
    "distilbert": DistilBertTokenizer,
    "roberta": RobertaTokenizer,
    "bart": BartTokenizer,
    "gpt2": GPT2Tokenizer,
    "llama": LlamaTokenizer,
    "t5": T5Tokenizer,
    "mt5": T5Tokenizer,
    "umt5": T5Tokenizer,
    "electra": ElectraTokenizer,
    "albert": AlbertTokenizer,
    "mpnet": MPNetTokenizer,
    "xlm-roberta": XLMRobertaTokenizer,
    "marian": MarianTokenizer,
    "mbart": MBartTokenizer,
    "mistral": LlamaTokenizer,
    "phi3": LlamaTokenizer,
    "opt": GPT2Tokenizer,
    "qwen2": Qwen2Tokenizer,
    "qwen3": Qwen2Tokenizer,
    "gpt_neox": GPTNeoXTokenizer,
    "gemma": GemmaTokenizer,
    "olmoe": GPTNeoXTokenizer,
    "qwen3_moe": Qwen2Tokenizer,
    "gpt_neo": GPT2Tokenizer,
    "gptj": GPT2Tokenizer,
    "phi": GPT2Tokenizer,
    "gemma3_text": GemmaTokenizer,
    "gemma2": GemmaTokenizer,
    "pegasus": PegasusTokenizer,
    "deberta-v2": DebertaV2Tokenizer,
    "camembert": CamembertTokenizer,
    "m2m_100": M2M100Tokenizer,
    "nomic_bert": BertTokenizer,
    "gte": XLMRobertaTokenizer,
    "jina_embeddings_v3": XLMRobertaTokenizer,
}


def load_tokenizer(
    name: str | Path, *, config: object = None, tokenizer_type: object = None, **arguments: Any
) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint, as the class that its tokenizer_config.json or config.json names.

    Args:
        name: a folder, a built-in name or a name on the hub.
        config: the model's configuration, where it is already loaded.
        tokenizer_type: a model type such as "gpt2", which says the class instead of the files.
        arguments: `revision`, `token`, `cache_dir`, `local_files_only`, `subfolder`, `gguf_file`, and settings of the
            tokenizer such as `model_max_length=512`.

    Raises:
        HubError: the checkpoint cannot be found.
        TokenizerError: it holds no tokenizer, or a damaged one; or there is no such tokenizer_type.
    """
    if tokenizer_type is not None:
        if not isinstance(tokenizer_type, str) or tokenizer_type not in _MODEL_TYPES:
            raise TokenizerError(
                f"tokenizer_type is {tokenizer_type!r}; it may be {', '.join(sorted(_MODEL_TYPES))}."
                f"{nearest(str(tokenizer_type), _MODEL_TYPES)}"
            )
        return _MODEL_TYPES[tokenizer_type].from_pretrained(name, **arguments)
    return load(name, PreTrainedTokenizerFast, _CLASSES, _MODEL_TYPES, config=config, **arguments)
