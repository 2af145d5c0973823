"""A model as a PyTorch module: copied, pickled, changed, resized, frozen, and inside a user's own model."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.pairs import TOLERANCE, gap, inputs, load, pair
from parity.tiny_models import CONFIGS, make
from torch import Tensor, nn

import cutaway
from cutaway import BertConfig, BertModel, PretrainedConfig, PreTrainedModel
from cutaway.errors import ConfigError, InputError
from cutaway.outputs import SequenceClassifierOutput

LM = {"bert": "ForMaskedLM", "distilbert": "ForMaskedLM", "roberta": "ForMaskedLM", "electra": "ForMaskedLM",
      "albert": "ForMaskedLM", "mpnet": "ForMaskedLM", "modernbert": "ForMaskedLM", "gpt2": "LMHeadModel",
      "llama": "ForCausalLM", "t5": "ForConditionalGeneration", "t5-gated": "ForConditionalGeneration",
      "bart": "ForConditionalGeneration"}  # fmt: skip


def logits(model: Any, family: str, **extra: Any) -> Tensor:
    with torch.no_grad():
        return model(**inputs(family, (6, 4)), **extra).logits


@pytest.mark.parametrize("family", LM)
def test_copies_pickles_and_state_dicts(family: str) -> None:
    ours = load(make(family, LM[family]), LM[family])
    wanted = logits(ours, family)
    copied, pickled = copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))
    for other in (copied, pickled):
        assert torch.equal(logits(other, family), wanted)
        assert other.num_parameters() == ours.num_parameters()
        same = other.get_output_embeddings().weight is other.get_input_embeddings().weight
        assert same == (ours.get_output_embeddings().weight is ours.get_input_embeddings().weight)
        name = "shared" if family in ("t5", "t5-gated") else None
        assert name is None or other.shared is other.get_input_embeddings()
    with torch.no_grad():
        copied.get_input_embeddings().weight.zero_()
    assert torch.equal(logits(ours, family), wanted)
    buffer = io.BytesIO()
    torch.save(ours.state_dict(), buffer)
    buffer.seek(0)
    fresh = type(ours)(ours.config).eval()
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(logits(fresh, family), wanted)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "bart"])
def test_dtypes_and_training(family: str) -> None:
    ours = load(make(family, LM[family]), LM[family])
    wanted = logits(ours, family)
    assert gap(logits(ours.to(torch.float64), family).float(), wanted) < TOLERANCE
    half = copy.deepcopy(ours).half()
    assert half.dtype == torch.float16 and all(p.dtype == torch.float16 for p in half.parameters())
    assert bool(torch.isfinite(logits(half, family)).all())
    assert gap(logits(ours.float(), family), wanted) < TOLERANCE
    assert not ours.training
    ours.train()
    a, b = logits(ours, family), logits(ours, family)
    assert torch.equal(a, b) == (family == "llama")  # Llama has no dropout
    ours.eval()
    assert torch.equal(logits(ours, family), logits(ours, family))


def test_freezing() -> None:
    ours = load(make("bert", "ForSequenceClassification"), "ForSequenceClassification")
    for p in ours.bert.parameters():
        p.requires_grad = False
    assert ours.num_parameters(only_trainable=True) == sum(p.numel() for p in ours.classifier.parameters())
    ours(**inputs("bert", (5, 3)), labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is None for p in ours.bert.parameters()) and ours.classifier.weight.grad is not None
    for p in ours.bert.encoder.layer[2].parameters():
        p.requires_grad = True
    trained = {n for n, p in ours.named_parameters() if p.requires_grad and not n.startswith("classifier")}
    assert trained and all(n.startswith("bert.encoder.layer.2.") for n in trained)


def test_a_layer_set_under_its_published_name_is_used() -> None:
    theirs, ours = pair("bert", "ForSequenceClassification")
    torch.manual_seed(0)
    query, classifier = nn.Linear(32, 32), nn.Linear(32, 5)
    given = inputs("bert", (6, 4))
    for model in (theirs, ours):
        model.bert.encoder.layer[1].attention.self.query = copy.deepcopy(query)
        model.classifier = copy.deepcopy(classifier)
        model.bert.embeddings.word_embeddings = nn.Embedding.from_pretrained(torch.ones(99, 32).cumsum(0) / 99)
    assert isinstance(ours.bert.encoder.layer[1].attention.self.query, nn.Linear)
    with torch.no_grad():
        theirs.config.num_labels = 5
        assert gap(ours(**given).logits, theirs(**given).logits) < TOLERANCE
        theirs, ours = pair("gpt2")
        for model in (theirs, ours):
            torch.manual_seed(1)
            model.h[0].attn.c_attn = nn.Linear(32, 96)  # what stands for three layers of the engine
        given = inputs("gpt2", (6, 4))
        assert gap(ours(**given).last_hidden_state[0], theirs(**given).last_hidden_state[0]) < TOLERANCE
        with pytest.raises(AttributeError, match="replace each alone"):
            load(make("bert"), "Model").encoder.layer[0].intermediate = nn.Linear(32, 48)


def test_hooks_on_published_names_run() -> None:
    ours = load(make("bert"), "Model")
    seen: list[Any] = []
    ours.encoder.layer[0].attention.self.query.register_forward_hook(lambda *a: seen.append(a[2].shape))
    ours.embeddings.word_embeddings.register_forward_hook(lambda *a: seen.append(a[2].shape))
    with torch.no_grad():
        ours(**inputs("bert", (5, 5)))
    assert len(seen) == 2 and all(s[-1] == 32 for s in seen)


@pytest.mark.parametrize("family", LM)
@pytest.mark.parametrize("size", [120, 60])
def test_resized_vocabularies(family: str, size: int) -> None:
    theirs, ours = pair(family, LM[family])
    tied = ours.get_output_embeddings().weight is ours.get_input_embeddings().weight
    old = ours.get_input_embeddings().weight.detach().clone()
    new = ours.resize_token_embeddings(size)
    assert new is ours.get_input_embeddings() and new.num_embeddings == size == ours.config.vocab_size
    assert torch.equal(new.weight[: min(size, 99)], old[:size])
    assert tied == (ours.get_output_embeddings().weight is new.weight)
    given = inputs(family, (6, 4))
    for name in given:
        if name.endswith("input_ids"):
            given[name] = given[name].clamp(max=59)
    with torch.no_grad():
        found, wanted = ours(**given).logits, theirs(**given).logits
        assert found.shape[-1] == size
        real = given["decoder_attention_mask" if "decoder_input_ids" in given else "attention_mask"].bool()
        assert gap(found[real][:, :60], wanted[real][:, :60]) < TOLERANCE
        given["input_ids"][0, 0] = size - 1
        ours(**given)
        given["input_ids"][0, 0] = size
        with pytest.raises(InputError, match=str(size)):
            ours(**given)
    again = load(ours, LM[family])
    assert again.get_input_embeddings().num_embeddings == size
    assert ours.resize_token_embeddings(size, pad_to_multiple_of=64).num_embeddings % 64 == 0
    more = ours.resize_token_embeddings(new_num_tokens=300, mean_resizing=False).weight[256:]
    assert 0 < more.std() < 5 * ours.init_std and not torch.allclose(more[0], more[1])
    assert torch.allclose(*ours.resize_token_embeddings(new_num_tokens=310).weight[300:302])
    for wrong in (0, -3, 2.5, True):
        with pytest.raises(InputError, match="resize_token_embeddings"):
            ours.resize_token_embeddings(wrong)


class HolderConfig(PretrainedConfig):
    """As in a well-known tutorial: the encoder itself is a field of the config."""

    def __init__(self, encoder: Any, hidden: int, classes: int, pool: str = "first", **kwargs: Any) -> None:
        super().__init__()
        self.encoder, self.hidden, self.classes, self.pool = encoder, hidden, classes, pool
        self.width = encoder.config.hidden_size


class Holder(PreTrainedModel):
    config_class = HolderConfig

    def __init__(self, config: HolderConfig) -> None:
        super().__init__(config)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(config.hidden, config.classes)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        out = self.config.encoder(input_ids, attention_mask=attention_mask)
        vector = out.pooler_output if self.config.pool == "pooler" else out.last_hidden_state[:, 0, :]
        found = self.head(vector)
        loss = None if labels is None else nn.CrossEntropyLoss()(found.view(-1, self.config.classes), labels.view(-1))
        return SequenceClassifierOutput(loss=loss, logits=found)


@pytest.mark.parametrize("pool", ["first", "pooler"])
def test_a_users_model_around_an_encoder_in_its_config(pool: str) -> None:
    theirs, encoder = pair("bert")
    model = Holder(HolderConfig(encoder, 16, 3, pool)).eval()
    given = inputs("bert", (6, 4))
    out = model(**given, labels=torch.tensor([0, 2]))
    out.loss.backward()
    with torch.no_grad():
        seen = theirs(**given)
        vector = seen.pooler_output if pool == "pooler" else seen.last_hidden_state[:, 0]
        assert gap(out.logits, model.head(vector)) < TOLERANCE
    assert encoder.embeddings.word_embeddings.weight.grad is not None
    assert "Sequential" in repr(model) and "encoder" in repr(model.config)
    again = copy.deepcopy(model)
    assert again.config.encoder is not encoder
    assert torch.equal(again(**given).logits, out.logits)
    assert {n.partition(".")[0] for n in model.state_dict()} == {"head"}
    assert model.num_parameters() == 32 * 16 + 16 + 16 * 3 + 3


class Tagger(PreTrainedModel):
    """A user's own model in the usual way: the base model under the family's prefix, own layers beside it."""

    config_class = BertConfig
    base_model_prefix = "bert"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.mix = nn.Parameter(torch.full((3,), 0.25))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, **given: Any) -> Any:
        out = self.bert(**given, output_hidden_states=True)
        return self.classifier(sum(w * h for w, h in zip(self.mix, out.hidden_states[1:], strict=True)))


def test_a_users_model_with_a_base_model_inside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import transformers

    base = make("bert")
    base.save_pretrained(tmp_path / "base")
    model, report = Tagger.from_pretrained(tmp_path / "base", num_labels=4, output_loading_info=True)
    assert set(report.missing) == {"mix", "classifier.weight", "classifier.bias"}
    assert "classifier.weight" in caplog.text
    assert model.mix.tolist() == [0.25] * 3  # what the model's own __init__ gave
    given = inputs("bert", (6, 4))
    with torch.no_grad():
        assert gap(model.bert(**given).last_hidden_state[0], base(**given).last_hidden_state[0]) < TOLERANCE
        found = model(**given)
    model.save_pretrained(tmp_path / "own")
    again, report = Tagger.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert not report.missing and not report.unexpected and again.config.num_labels == 4
    with torch.no_grad():
        assert torch.equal(again(**given), found)

    class Theirs(transformers.BertPreTrainedModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.bert = transformers.BertModel(config, add_pooling_layer=False)
            self.mix = nn.Parameter(torch.zeros(3))
            self.classifier = nn.Linear(config.hidden_size, config.num_labels)
            self.post_init()

    upstream, info = Theirs.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(upstream.mix, model.mix) and torch.equal(upstream.classifier.weight, model.classifier.weight)
    assert len(model.addresses()) >= 50 and model.device.type == "cpu"


@pytest.mark.parametrize("family", CONFIGS)
def test_a_model_can_be_read(family: str) -> None:
    theirs = make(family)
    ours = load(theirs, "Model")
    shown = repr(ours)
    assert shown.startswith(type(ours).__name__)
    # the files of some families have other names than upstream's classes, whose print then says nothing of ours
    alike = ours.state_dict().keys() == theirs.state_dict().keys()
    shows = theirs if alike else ours
    names = {name.rpartition(".")[0].rpartition(".")[2] for name, _ in shows.named_parameters()}
    # a list shows those that are alike once; a parameter of the model itself stands in no module
    names = {name for name in names if name and not name.isdigit()}
    assert all(f"({name})" in shown for name in names) and "blocks" not in shown and "=32" in shown
    # where a convolution follows the first layer, no module of ours is that layer, and it is shown apart
    apart = repr(ours.encoder.layer[0]).splitlines() if family == "deberta-v2-conv" else []
    assert not alike or len(shown.splitlines()) <= len(repr(theirs).splitlines()) + len(apart)
    assert "(_layers)" not in shown and "0x" not in shown


def test_what_is_no_config_is_said() -> None:
    with pytest.raises(ConfigError, match="from_pretrained"):
        cutaway.BertModel("bert-base-uncased")


def test_two_vocabularies_are_not_resized() -> None:
    config = cutaway.MarianConfig(
        vocab_size=20, decoder_vocab_size=30, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=0, decoder_start_token_id=0,
        share_encoder_decoder_embeddings=False,
    )  # fmt: skip
    model = cutaway.MarianMTModel(config)
    assert model.get_input_embeddings().num_embeddings == 20 and model.lm_head.weight.shape[0] == 30
    assert model.lm_head.weight is model.get_decoder().embed.tokens.weight
    with pytest.raises(InputError, match="vocabularies of their own"):
        model.resize_token_embeddings(25)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
@torch.no_grad()
def test_an_argument_that_a_model_does_not_take_is_named(family: str) -> None:
    ours = load(make(family, "Model"), "Model")
    given = inputs(family, (6, 4))
    with pytest.raises(TypeError, match=r"^\w+ takes no argument head_mask. .* model.edit") as raised:
        ours(**given, head_mask=torch.ones(3, 4))
    assert isinstance(raised.value, InputError) and type(ours).__name__ in str(raised.value)
    with pytest.raises(InputError, match=r"takes no argument atention_mask\. Did you mean 'attention_mask'"):
        ours(**given, atention_mask=None)
    if family == "xlnet":
        with pytest.raises(InputError, match=r"XLNetModel takes no argument past_key_values\. It reads its whole text"):
            ours(**given, past_key_values=[])
    if family != "t5":  # the way out is one
        with ours.edit({"blocks.0.attn.head.3.out": 0.0}):
            assert not torch.equal(ours(**given)[0], load(make(family, "Model"), "Model")(**given)[0])


def test_an_argument_may_be_for_a_hook_or_for_a_forward_of_the_models_own() -> None:
    ours = load(make("bert", "Model"), "Model")
    given = inputs("bert", (6, 4))
    hook = ours.register_forward_pre_hook(
        lambda module, args, named: (args, {name: named[name] for name in named if name != "extra"}), with_kwargs=True
    )
    wanted = ours(**given, extra=1).last_hidden_state
    hook.remove()
    before = ours.forward
    ours.forward = lambda extra, **named: before(**named)
    assert torch.equal(ours(**given, extra=1).last_hidden_state, wanted)
