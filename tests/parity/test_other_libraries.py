"""Libraries that work with transformers' models, given ours: the same numbers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from parity.pipes import checkpoints

import cutaway

TEXTS = ["a good film", "a bad film", "not very good", "i believe that", "it was great", "very bad", "a film", "not it"]
LIBRARIES = (cutaway, transformers)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what these libraries warn of is theirs
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny Llama with words for tokens, a base BERT and a classifier."""
    torch.manual_seed(0)
    tokenizer = checkpoints.wordpiece()
    tokenizer.eos_token = "[SEP]"
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=64, pad_token_id=0, eos_token_id=3, bos_token_id=2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp
    return {
        "lm": str(checkpoints.save(folder("lm"), transformers.LlamaForCausalLM(config), tokenizer)),
        "base": str(checkpoints.classifier(folder("base"), head="BertModel")),
        "classifier": str(checkpoints.classifier(folder("classifier"))),
    }


def lm(library: Any, folder: str) -> tuple[Any, Any]:
    return library.AutoModelForCausalLM.from_pretrained(folder), library.AutoTokenizer.from_pretrained(folder)


def close(found: list[Any], tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(np.asarray(found[0]), np.asarray(found[1]), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", ["SFT", "DPO", "GRPO"])
def test_trl(kind: str, folders: dict[str, str], tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    import datasets

    columns = {
        "SFT": {"text": TEXTS},
        "DPO": {"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS[::-1]},
        "GRPO": {"prompt": TEXTS},
    }[kind]
    settings: dict[str, Any] = dict.fromkeys(("bf16", "gradient_checkpointing"), False)
    settings |= {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "report_to": [], "use_cpu": True}
    beside: dict[str, Any] = {}
    if kind == "GRPO":
        settings |= {"num_generations": 2, "max_completion_length": 4}
        beside["reward_funcs"] = lambda completions, **rest: [float(len(text)) for text in completions]
    found = []
    for library in LIBRARIES:
        model, tokenizer = lm(library, folders["lm"])
        args = getattr(trl, f"{kind}Config")(output_dir=str(tmp_path), save_strategy="no", **settings)
        data = datasets.Dataset.from_dict(columns)
        trainer = getattr(trl, f"{kind}Trainer")(
            model=model, args=args, train_dataset=data, processing_class=tokenizer, **beside
        )
        trainer.train()
        trainer.save_model(str(tmp_path / library.__name__))
        assert type(library.AutoModelForCausalLM.from_pretrained(tmp_path / library.__name__)) is type(model)
        found.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    close(found)


def sentence_model(library: Any, folder: str) -> Any:
    import sentence_transformers
    from sentence_transformers.sentence_transformer import modules

    first = modules.Transformer(folder)
    first.model = library.AutoModel.from_pretrained(folder)
    first.processor = library.AutoTokenizer.from_pretrained(folder)
    return sentence_transformers.SentenceTransformer(modules=[first, modules.Pooling(32)], device="cpu")


def test_sentence_transformers_over_our_model(folders: dict[str, str], tmp_path: Path) -> None:
    models = [sentence_model(library, folders["base"]) for library in LIBRARIES]
    close([model.encode(TEXTS) for model in models], 1e-5)
    models[0].save_pretrained(str(tmp_path), create_model_card=False)
    close([cutaway.Embedder(str(tmp_path)).encode(TEXTS), models[1].encode(TEXTS)], 1e-5)


def test_setfit(folders: dict[str, str], tmp_path: Path) -> None:
    setfit = pytest.importorskip("setfit")
    from datasets import Dataset
    from sklearn.linear_model import LogisticRegression

    found = []
    for library in LIBRARIES:
        model = setfit.SetFitModel(model_body=sentence_model(library, folders["base"]), model_head=LogisticRegression())
        args = setfit.TrainingArguments(
            output_dir=str(tmp_path), batch_size=4, num_iterations=1, num_epochs=1, report_to=[], seed=0
        )
        data = Dataset.from_dict({"text": TEXTS, "label": [1, 0, 0, 1, 1, 0, 1, 0]})
        setfit.Trainer(model=model, args=args, train_dataset=data).train()
        found.append(model.predict_proba(TEXTS))
    close(found)


def test_lm_eval(folders: dict[str, str]) -> None:
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.api.instance import Instance

    found, texts = [], []
    for library in LIBRARIES:
        model, tokenizer = lm(library, folders["lm"])
        harness = huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, device="cpu", max_length=32)
        asked = [Instance("loglikelihood", {}, (text, " film"), i) for i, text in enumerate(TEXTS)]
        found.append([score for score, _ in harness.loglikelihood(asked, disable_tqdm=True)])
        until = {"until": ["."], "max_gen_toks": 4}
        texts.append(harness.generate_until([Instance("generate_until", {}, (TEXTS[0], until), 0)], disable_tqdm=True))
    close(found)
    assert texts[0] == texts[1]


def test_bertopic(folders: dict[str, str]) -> None:
    backends = pytest.importorskip("bertopic.backend._utils")
    pipes = [library.pipeline("feature-extraction", model=folders["base"]) for library in LIBRARIES]
    close([backends.select_backend(pipe).embed(TEXTS) for pipe in pipes], 1e-5)


def test_transformers_interpret(folders: dict[str, str]) -> None:
    interpret = pytest.importorskip("transformers_interpret")
    found = []
    for library in LIBRARIES:
        model = library.AutoModelForSequenceClassification.from_pretrained(folders["classifier"])
        tokenizer = library.AutoTokenizer.from_pretrained(folders["classifier"])
        explained = interpret.SequenceClassificationExplainer(model, tokenizer)(TEXTS[0])
        found.append([weight for _, weight in explained])
    close(found)


def test_nnsight(folders: dict[str, str]) -> None:
    nnsight = pytest.importorskip("nnsight")
    found = []
    for library in LIBRARIES:
        model, tokenizer = lm(library, folders["lm"])
        seen = nnsight.LanguageModel(model, tokenizer=tokenizer)
        with seen.trace(TEXTS[0]):
            logits = seen.lm_head.output.save()
        found.append(logits.detach().numpy())
    close(found, 1e-5)


def test_captum_of_a_language_model(folders: dict[str, str]) -> None:
    from captum import attr

    found = []
    for library in LIBRARIES:
        model, tokenizer = lm(library, folders["lm"])
        ablation = attr.LLMAttribution(attr.FeatureAblation(model), tokenizer)
        text = attr.TextTokenInput(TEXTS[0], tokenizer)
        kept = ablation.attribute(text, target="very bad", use_cached_outputs=library is cutaway)
        found.append(kept.seq_attr.numpy())
    close(found)


def test_shap_without_a_masker(folders: dict[str, str]) -> None:
    shap = pytest.importorskip("shap")
    found = []
    for library in LIBRARIES:
        pipe = library.pipeline("text-classification", model=folders["classifier"], top_k=None)
        found.append(shap.Explainer(pipe)(TEXTS[:1], silent=True).values[0])
    close(found, 1e-5)


def test_accelerate_unloads_to_the_disk(folders: dict[str, str], tmp_path: Path) -> None:
    import accelerate

    model, _ = lm(cutaway, folders["lm"])
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(ids).logits
        accelerate.disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
        close([model(ids).logits.numpy(), before.numpy()], 1e-5)
