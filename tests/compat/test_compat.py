"""Upstream's names: all of them import, from its paths too, and the table in the docs is current."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
import upstream_names

import cutaway
from cutaway.compat import availability, finder, refused, table
from cutaway.errors import ConfigError, CutawayError, MissingExtraError

ROOT = Path(__file__).parents[2]


def test_the_table_in_the_docs_is_current() -> None:
    assert upstream_names.PAGE.read_text(encoding="utf-8") == upstream_names.page()


@pytest.mark.parametrize(
    "path",
    [
        *(p for p in table.MODULES if p != "models"),
        "models.bert",
        "models.gpt2.modeling_gpt2",
        "models.t5.tokenization_t5",
    ],
)
def test_every_served_path_has_its_names(path: str) -> None:
    module = importlib.import_module(f"cutaway.{path}")
    for name in module.__all__:
        getattr(module, name)
    upstream = Path(transformers.__file__).parent.joinpath(*path.split("."))
    # of earlier versions, and what upstream serves by a table too
    gone = ("generation.beam_search", "generation_utils", "models.t5.tokenization_t5", "tokenization_utils",
            "tokenization_utils_fast")  # fmt: skip
    assert upstream.is_dir() or upstream.with_suffix(".py").is_file() or path in gone


def test_every_family_is_served() -> None:
    for folder, first in table._families().items():
        modeling = importlib.import_module(f"cutaway.models.{folder}.modeling_{folder}")
        config = importlib.import_module(f"cutaway.models.{folder}.configuration_{folder}")
        text = "Gemma3Text" if folder == "gemma3" else first  # upstream's other classes of Gemma 3 read pictures
        assert f"{text}Model" in modeling.__all__ and config.__all__ == [f"{text}Config"]
        assert all(name.startswith(first) for name in modeling.__all__)


def test_statements_that_scripts_begin_with() -> None:
    script = """
import cutaway.utils.logging as logging_module
from cutaway import HfArgumentParser, Seq2SeqTrainer, logging
from cutaway.activations import ACT2FN
from cutaway.file_utils import ModelOutput
from cutaway.models.bert.modeling_bert import BertModel
from cutaway.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from cutaway.modeling_outputs import SequenceClassifierOutput
from cutaway.pipelines.pt_utils import KeyDataset
from cutaway.tokenization_utils_base import PaddingStrategy, PreTrainedTokenizerBase
from cutaway.trainer_pt_utils import get_parameter_names
from cutaway.trainer_utils import get_last_checkpoint
from cutaway.training_args import TrainingArguments
from cutaway.utils import check_min_version, is_flash_attn_2_available, logging
from cutaway.utils.versions import require_version
import cutaway
check_min_version("5.24.0.dev0")
assert cutaway.BertModel is BertModel and logging.get_logger is logging_module.get_logger
assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["gpt2"] == "GPT2LMHeadModel" and not is_flash_attn_2_available()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=ROOT, timeout=120)


def test_modules_are_attributes_too() -> None:
    script = """
import cutaway
cutaway.utils.logging.set_verbosity_error()
assert cutaway.trainer_utils.get_last_checkpoint(".") is None
assert cutaway.models.bert.modeling_bert.BertModel is cutaway.BertModel
assert cutaway.pipelines.pt_utils.KeyDataset and cutaway.modeling_outputs.ModelOutput is cutaway.ModelOutput
assert not hasattr(cutaway, "no_such") and not hasattr(cutaway, "_private")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=ROOT, timeout=120)


def test_a_path_costs_nothing_before_it_is_asked_for() -> None:
    code = "import sys, cutaway, cutaway.utils, cutaway.trainer_utils, cutaway.models.bert.modeling_bert as m; "
    code += "assert 'BertModel' in dir(m); print(*(m for m in ('torch', 'transformers', 'numpy') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_what_is_not_there() -> None:
    for path in ("no_such", "utils.no_such", "models.bert.modeling_gpt2", "models.no_such.modeling_no_such"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"cutaway.{path}")
        assert importlib.util.find_spec("cutaway.no_such") is None
    module = importlib.import_module("cutaway.trainer_utils")
    with pytest.raises(AttributeError, match="get_last_checkpoint"):
        module.get_last_checkpont  # noqa: B018
    with pytest.raises(ImportError):
        exec("from cutaway.trainer_utils import no_such_name")


@pytest.mark.parametrize("name", sorted(refused.INSTEAD))
def test_a_name_that_can_be_imported_and_not_used_says_what_to_use(name: str) -> None:
    kind = getattr(refused, name)
    with pytest.raises(CutawayError, match=name):
        kind(load_in_4bit=True)
    with pytest.raises(CutawayError, match="upstream-names"):
        kind.from_dict({})
    assert isinstance(kind, type) and not isinstance(3, kind)


def test_packages_that_are_there() -> None:
    for name, package in {"torch": "torch", "datasets": "datasets", "sklearn": "sklearn", "jinja": "jinja2"}.items():
        assert getattr(availability, f"is_{name}_available")() == (importlib.util.find_spec(package) is not None)
    from cutaway.utils import is_tf_available, is_torch_available, is_torch_cuda_available

    assert is_torch_available() and not is_tf_available() and is_torch_cuda_available() == torch.cuda.is_available()
    asked = [n for n in transformers.__dict__.get("_class_to_module", {}) if n.startswith("is_")]
    for name in asked:
        assert availability.known(name), name


def test_versions() -> None:
    from cutaway.utils.versions import require_version

    require_version("torch>=2.0", "install it")
    require_version("python>=3.8,<9")
    require_version("transformers>=99")  # a script means the library whose names these are
    with pytest.raises(ImportError, match="install it"):
        require_version("torch<1.0", "install it")
    with pytest.raises(ImportError, match="not installed"):
        require_version("no_such_package_here")
    with pytest.raises(ImportError, match="no condition"):
        require_version("torch~=2")
    with pytest.raises(MissingExtraError, match="no_such"):
        cutaway.requires_backends(test_versions, ["torch", "no_such"])


def test_last_checkpoint(tmp_path: Path) -> None:
    from cutaway.trainer_utils import get_last_checkpoint

    assert get_last_checkpoint(tmp_path) is None
    for step in (5, 40, 300):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-400").touch()
    assert get_last_checkpoint(tmp_path) == transformers.trainer_utils.get_last_checkpoint(str(tmp_path))


def test_logging(capsys: pytest.CaptureFixture[str]) -> None:
    import logging as python_logging

    from cutaway.utils import logging

    root = python_logging.getLogger("cutaway")
    before = root.level, root.propagate, list(root.handlers)
    try:
        logging.set_verbosity_info()
        assert logging.get_verbosity() == logging.INFO
        log = logging.get_logger("cutaway.script")
        log.info("one %d", 1)
        for _ in range(3):
            log.warning_once("twice")
        logging.set_verbosity_error()
        log.warning("three")
        logging.set_verbosity(logging.WARNING)
        logging.disable_default_handler()
        log.warning("four")
        logging.enable_default_handler()
        logging.enable_explicit_format()
        log.warning("five")
        logging.reset_format()
        assert log.name == "cutaway.script" and log.isEnabledFor(logging.WARNING)
    finally:
        root.setLevel(before[0])
        root.propagate = before[1]
        root.handlers = before[2]
        from cutaway.compat.verbosity import _State

        _State.handler = None
    said = capsys.readouterr().err
    assert said.count("twice") == 1 and "one 1" in said and "three" not in said and "four" not in said
    assert "[WARNING|test_compat.py" in said


def test_progress_bars() -> None:
    from cutaway.utils import logging

    assert logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with logging.tqdm(range(3)) as bar:
            assert list(bar) == [0, 1, 2]
            bar.set_description("nothing")
    finally:
        logging.enable_progress_bar()


def test_activations() -> None:
    from cutaway.activations import ACT2FN, get_activation

    x = torch.linspace(-4, 4, 101)
    for name in set(ACT2FN) - {"prelu"}:
        assert torch.allclose(ACT2FN[name](x), transformers.activations.ACT2FN[name](x), atol=1e-6), name
    assert set(transformers.activations.ACT2FN) - set(ACT2FN) <= {"xielu", "sqrtsoftplus"}
    with pytest.raises(KeyError, match="gelu_new"):
        get_activation("gelu_nwe")


def test_mappings() -> None:
    assert cutaway.CONFIG_MAPPING["bert"] is cutaway.BertConfig and len(cutaway.CONFIG_MAPPING) >= 23
    assert cutaway.MODEL_MAPPING[cutaway.BertConfig] is cutaway.BertModel
    # where upstream is loaded, an object answers its class with one that is both
    assert cutaway.MODEL_MAPPING[cutaway.BertConfig().__class__] is cutaway.BertModel
    models = cutaway.MODEL_FOR_CAUSAL_LM_MAPPING
    assert models[cutaway.GPT2Config] is cutaway.GPT2LMHeadModel and cutaway.T5Config not in models
    kinds = [config.model_type for config in cutaway.MODEL_FOR_MASKED_LM_MAPPING]
    assert "roberta" in kinds and "llama" not in kinds
    assert cutaway.TOKENIZER_MAPPING[cutaway.BertConfig] is cutaway.BertTokenizerFast
    from cutaway.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES as NAMES

    theirs = transformers.models.auto.modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
    assert {kind: theirs.get(kind) for kind in NAMES if kind in theirs} == {k: NAMES[k] for k in NAMES if k in theirs}


class OwnConfig(cutaway.BertConfig):
    model_type = "own"


class OwnModel(cutaway.BertForSequenceClassification):
    config_class = OwnConfig


def test_classes_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cutaway import auto

    monkeypatch.setattr(auto, "_CONFIGS", {})
    monkeypatch.setattr(auto, "_TOKENIZERS", {})
    monkeypatch.setattr(cutaway.AutoModelForSequenceClassification, "_registered", {}, raising=False)
    cutaway.AutoConfig.register("own", OwnConfig)
    cutaway.AutoModelForSequenceClassification.register(OwnConfig, OwnModel)
    with pytest.raises(ConfigError, match="exist_ok"):
        cutaway.AutoConfig.register("own", OwnConfig)
    with pytest.raises(ConfigError, match="make them equal"):
        cutaway.AutoConfig.register("other", OwnConfig)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    OwnModel(OwnConfig(vocab_size=20, **sizes)).save_pretrained(tmp_path)
    assert isinstance(cutaway.AutoConfig.from_pretrained(tmp_path), OwnConfig)
    assert type(cutaway.AutoModelForSequenceClassification.from_pretrained(tmp_path)) is OwnModel
    with pytest.raises(ConfigError, match="own"):
        cutaway.AutoModelForTokenClassification.from_pretrained(tmp_path)


def test_small_things_of_the_trainer() -> None:
    from transformers import trainer_pt_utils as theirs

    from cutaway import trainer_pt_utils as ours

    a, b = torch.randn(2, 3, 4), torch.randn(3, 5, 4)
    for x, y in ((a, b), (a.numpy(), b.numpy()), ((a, a), (b, b)), ({"x": a}, {"x": b})):
        mine, other = ours.nested_concat(x, y), theirs.nested_concat(x, y)
        flat = lambda v: v["x"] if isinstance(v, dict) else v[0] if isinstance(v, tuple) else v  # noqa: E731
        assert torch.equal(torch.as_tensor(flat(mine)), torch.as_tensor(flat(other)))
    model = cutaway.BertForSequenceClassification(cutaway.BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
                                                  num_attention_heads=2, intermediate_size=8))  # fmt: skip
    kept = ours.get_parameter_names(model, [torch.nn.LayerNorm], [r"bias"])
    assert kept and all("bias" not in name and "norm" not in name for name in kept)
    logits, labels = torch.randn(2, 5, 7), torch.tensor([[1, 2, -100, 3, 4], [0, -100, 5, 6, -100]])
    for shift in (False, True):
        got = ours.LabelSmoother(0.2)({"logits": logits}, labels.clone(), shift)
        want = theirs.LabelSmoother(0.2)({"logits": logits}, labels.clone(), shift)
        assert torch.allclose(got, want, atol=1e-6)
    layer, other = cutaway.Conv1D(3, 4), transformers.Conv1D(3, 4)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4)
    assert torch.allclose(layer(x), other(x), atol=1e-6)
    chunked = cutaway.apply_chunking_to_forward(lambda t: t * 2, 2, 1, torch.ones(1, 4))
    assert torch.equal(chunked, torch.full((1, 4), 2.0))
    assert pickle.loads(pickle.dumps(cutaway.SchedulerType.COSINE)) == "cosine" and json.dumps(cutaway.TensorType.NUMPY)


@pytest.mark.parametrize("old", finder.MOVED)
def test_old_paths_of_ours_are_importable(old: str) -> None:
    old_module, new_module = importlib.import_module(f"cutaway.{old}"), importlib.import_module(finder.MOVED[old])
    public = [name for name in vars(new_module) if not name.startswith("_")]
    assert public and all(getattr(old_module, name) is getattr(new_module, name) for name in public)
