"""A small script, written as example scripts for upstream are, run with both libraries: only the import differs."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import cutaway
from cutaway.errors import ConfigError, CutawayError, GenerationError, InputError, TokenizerError

# It names families that it does not load, silences a logger for one call, asks about DeepSpeed, groups parameters by
# their names, follows a schedule, and writes at the end.
SCRIPT = """
import torch
import LIBRARY
from LIBRARY import (
    MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, BloomForCausalLM, CTRLLMHeadModel,
    CTRLTokenizer, M2M100Tokenizer, MBart50Tokenizer, MBart50TokenizerFast, MBartTokenizer, XLNetLMHeadModel,
    default_data_collator, get_scheduler, set_seed,
)
from LIBRARY.integrations import is_deepspeed_zero3_enabled
from LIBRARY.testing_utils import CaptureLogger
from LIBRARY.tokenization_utils_sentencepiece import SentencePieceBackend
from LIBRARY.utils import check_min_version
from LIBRARY.utils.versions import require_version

check_min_version("4.57.0")
require_version("torch>=2.0", "pip install torch")
MODEL_TYPES = {"bloom": BloomForCausalLM, "ctrl": CTRLLMHeadModel, "xlnet": XLNetLMHeadModel}
TYPES = tuple(kind.model_type for kind in MODEL_FOR_CAUSAL_LM_MAPPING)

def main(folder, rows):
    set_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not isinstance(tokenizer, (M2M100Tokenizer, MBart50Tokenizer, MBart50TokenizerFast, SentencePieceBackend))
    with CaptureLogger(LIBRARY.utils.logging.get_logger("LIBRARY.tokenization_utils_base")) as said:
        texts = tokenizer(rows)["input_ids"]
    assert "long" not in said.out and not is_deepspeed_zero3_enabled()
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type in TYPES and config.model_type not in MODEL_TYPES
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, from_tf=bool(".ckpt" in str(folder)))
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))
    joined = sum(texts, [])
    blocks = [{"input_ids": joined[i : i + 16], "labels": joined[i : i + 16]} for i in range(0, len(joined) - 15, 16)]
    groups = [
        {"params": [p for n, p in model.named_parameters() if "bias" not in n], "weight_decay": 0.1},
        {"params": [p for n, p in model.named_parameters() if "bias" in n], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=1, num_training_steps=len(blocks) // 2)
    losses = []
    model.eval()  # nothing is drawn, so both libraries give the same
    for i in range(0, len(blocks) - 1, 2):
        loss = model(**default_data_collator(blocks[i : i + 2])).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    ids = tokenizer.encode("the film", add_special_tokens=False, return_tensors="pt")
    how = {"do_sample": True, "top_k": 1, "repetition_penalty": 1.1}
    written = model.generate(input_ids=ids, max_length=20 + len(ids[0]), **how)
    return losses, tokenizer.decode(written[0], clean_up_tokenization_spaces=True)
"""


def test_a_script_with_only_its_import_changed(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "model")
    rows = [f"a good film {n} and a bad one, i believe it was not very great" for n in range(6)]
    found = []
    for library in ("transformers", "cutaway"):
        names: dict[str, Any] = {}
        exec(compile(SCRIPT.replace("LIBRARY", library), f"{library}_script.py", "exec"), names)
        found.append(names["main"](folder, rows))
    (theirs, text), (mine, own) = found
    assert mine == pytest.approx(theirs, rel=1e-4) and len(mine) > 5 and own == text


def test_every_name_of_text_can_be_imported_and_says_why_it_cannot_be_used() -> None:
    from upstream_names import public_names, table

    library, families = public_names()
    every = [*library, *(name for names in families.values() for name in names)]
    assert [name for name in every if not name.isupper() and not hasattr(cutaway, name)] == []
    assert table() == (Path(cutaway.__file__).parent / "compat" / "not_built.py").read_text(encoding="utf-8")
    with pytest.raises(CutawayError, match="the family ctrl is not built"):
        cutaway.CTRLConfig()
    with pytest.raises(AttributeError, match="AutoModel"):
        _ = cutaway.AutoModl
    assert not isinstance(cutaway.BertConfig(), cutaway.BloomConfig)
    from cutaway.models.auto.modeling_auto import (  # type: ignore[import-not-found]
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )

    assert not MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES and not len(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING)
    with pytest.raises(ConfigError, match="no family"):
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.register(cutaway.BertConfig, cutaway.BertModel)


def test_outputs_of_ones_own_and_torchs_trees() -> None:
    from torch.utils import _pytree

    @dataclasses.dataclass
    class Mine(cutaway.utils.ModelOutput):  # type: ignore[misc, name-defined]
        a: typing.Any = None
        b: typing.Any = None

    assert dict(Mine([("a", 1), ("b", 2)])) == dict(Mine({"a": 1, "b": 2})) == {"a": 1, "b": 2}
    assert Mine(a=(3, 4)).a == (3, 4) and Mine([("a", 1)]).b is None
    with pytest.raises(ValueError, match="10"):
        Mine([("a", 1), (10, 10)])

    class Bare(cutaway.utils.ModelOutput):  # type: ignore[misc, name-defined]
        a: int

    with pytest.raises(TypeError, match="dataclass"):
        Bare(a=1)
    for output in (Mine(a=1.0, b=2.0), cutaway.utils.ModelOutput({"a": 1.0, "b": 2.0})):
        values, tree = _pytree.tree_flatten(output)
        assert values == [1.0, 2.0] and _pytree.tree_unflatten(values, tree) == output
    base = cutaway.modeling_outputs.BaseModelOutput(last_hidden_state=torch.ones(2))
    doubled = _pytree.tree_map(lambda x: 2 * x, base)
    assert type(doubled) is type(base) and doubled.last_hidden_state.sum() == 4


def test_modes_of_generation() -> None:
    import transformers

    for settings in ({}, {"do_sample": True}, {"num_beams": 2}, {"num_beams": 2, "do_sample": True},
                     {"prompt_lookup_num_tokens": 3}):  # fmt: skip
        for helper in (None, "another model"):
            if helper and "num_beams" in settings:
                continue
            mine, theirs = (m.GenerationConfig(**settings).get_generation_mode(helper) for m in (cutaway, transformers))
            assert mine.value == theirs.value
    assert cutaway.GenerationConfig().cache_config is None
    with pytest.raises(AttributeError, match="num_beams"):
        _ = cutaway.GenerationConfig().num_beem


def test_small_rules_that_scripts_lean_on() -> None:
    from cutaway.generation.stopping_criteria import (  # type: ignore[import-not-found]
        MaxLengthCriteria,
        StoppingCriteriaList,
        validate_stopping_criteria,
    )
    from cutaway.utils.chat_template_utils import (  # type: ignore[import-not-found]
        DocstringParsingException,
        TypeHintParsingException,
    )

    with pytest.warns(UserWarning, match="max_length=10"):
        validate_stopping_criteria(StoppingCriteriaList([MaxLengthCriteria(10)]), 11)
    scores = torch.zeros(1, 5)
    only_end = cutaway.NoBadWordsLogitsProcessor([[4]], eos_token_id=4)
    assert torch.equal(only_end(torch.tensor([[1]]), scores), scores)
    with pytest.raises(GenerationError):
        cutaway.NoBadWordsLogitsProcessor([], eos_token_id=4)

    def bare(x: int) -> int:
        return x

    def untyped(x):  # type: ignore[no-untyped-def]
        """Adds.

        Args:
            x: a number.
        """

    with pytest.raises(DocstringParsingException):
        cutaway.utils.get_json_schema(bare)
    with pytest.raises(TypeHintParsingException) as error:
        cutaway.utils.get_json_schema(untyped)
    assert isinstance(error.value, TokenizerError)


def test_what_may_be_asked_of_a_class_and_what_has_two_names(tmp_path: Path) -> None:
    import transformers

    for name in ("GPT2LMHeadModel", "GPT2Model", "BertModel", "BertForMaskedLM", "T5ForConditionalGeneration"):
        mine, theirs = getattr(cutaway, name), getattr(transformers, name)
        assert mine.can_generate() is theirs.can_generate(), name
    model = cutaway.AutoModelForCausalLM.from_pretrained(tiny.decoder(tmp_path))
    assert model.can_generate() is True and cutaway.AutoModel.from_pretrained(tmp_path).can_generate() is False
    for given in ({"dtype": "float16", "torch_dtype": "float32"}, {"torch_dtype": "float32", "dtype": "float16"},
                  {"torch_dtype": "bfloat16"}, {"torch_dtype": "float16", "dtype": None}):  # fmt: skip
        mine, theirs = (m.PretrainedConfig(**given).dtype for m in (cutaway, transformers))
        assert str(mine).removeprefix("torch.") == str(theirs).removeprefix("torch."), given
    with pytest.raises(InputError, match=r"\[batch, length, hidden\]"):
        model.generate(inputs_embeds=torch.zeros(2, 3))


def test_names_and_folders_under_their_published_names(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "model")
    kinds = (
        cutaway.AutoConfig, cutaway.GPT2Config, cutaway.AutoModel, cutaway.AutoModelForCausalLM,
        cutaway.GPT2LMHeadModel, cutaway.AutoTokenizer, cutaway.PreTrainedTokenizerFast, cutaway.GenerationConfig,
    )  # fmt: skip
    for number, kind in enumerate(kinds):
        key = "pretrained_model_name" if kind is cutaway.GenerationConfig else "pretrained_model_name_or_path"
        found = kind.from_pretrained(**{key: folder})  # type: ignore[attr-defined]
        found.save_pretrained(save_directory=tmp_path / str(number))
        assert any((tmp_path / str(number)).iterdir())
        with pytest.raises(TypeError, match="name"):
            kind.from_pretrained(name=folder, **{key: folder})  # type: ignore[attr-defined]


def test_a_configuration_lists_its_fields_wherever_it_is_asked() -> None:
    from inspect import signature

    class Own(cutaway.BertConfig):  # type: ignore[misc]
        def __init__(self, extra: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.extra = extra

    for kind in (cutaway.BertConfig, cutaway.LlamaConfig, cutaway.T5Config):
        named = list(signature(kind.__init__).parameters)
        assert named[0] == "self" and {"vocab_size", "pad_token_id", "kwargs"} < set(named)
        assert named[1:] == list(signature(kind).parameters)
    assert list(signature(Own.__init__).parameters) == ["self", "extra", "kwargs"]
    made = Own(extra=4, hidden_size=36)
    assert (made.extra, made.hidden_size) == (4, 36) and made.to_dict()["extra"] == 4
    other = cutaway.GPT2Config.__new__(cutaway.GPT2Config)
    cutaway.GPT2Config.__init__(other, n_embd=8)
    assert other.hidden_size == 8
