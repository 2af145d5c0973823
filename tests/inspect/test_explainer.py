"""What `explain` says is what the model does: compared with transformers on tiny random models."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

import cutaway
from cutaway.errors import InputError
from cutaway.inspect import explain
from cutaway.inspect.asked import kind_of

TEXT = "I believe that the EU is trustworthy."


def upstream(folder, auto):
    import transformers

    transformers.logging.disable_progress_bar()
    model = getattr(transformers, auto).from_pretrained(str(folder), attn_implementation="eager").eval()
    return model, transformers.AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny.classifier(tmp_path_factory.mktemp("models") / "classifier")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return tiny.decoder(tmp_path_factory.mktemp("models") / "decoder")


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return tiny.encoder_decoder(tmp_path_factory.mktemp("models") / "t5")


@torch.inference_mode()
def test_an_encoder(classifier):
    model, tokenizer = upstream(classifier, "AutoModelForSequenceClassification")
    encoding = tokenizer(TEXT, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoding.pop("offset_mapping")[0].tolist()
    theirs = model(**encoding, output_attentions=True, output_hidden_states=True)
    ours = explain(TEXT, str(classifier))

    assert [token.id for token in ours.tokens] == encoding["input_ids"][0].tolist()
    assert [token.token for token in ours.tokens] == encoding.tokens()
    inner = [[t.start, t.end] for t in ours.tokens if not t.special]
    assert inner == offsets[1:-1]
    np.testing.assert_allclose(ours.attention["self"].pattern, torch.cat(theirs.attentions).numpy(), atol=1e-5)
    states = torch.cat(theirs.hidden_states).numpy()
    np.testing.assert_allclose(ours.states["self"].first, states[:, :, :8], atol=1e-4)
    np.testing.assert_allclose(ours.states["self"].norm, np.linalg.norm(states, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(ours.states["self"].to_embedding[0], 1, atol=1e-5)
    probabilities = theirs.logits.softmax(-1)[0].tolist()
    assert [answer.probability for answer in ours.answers] == pytest.approx(probabilities, abs=1e-5)
    assert ours.model.layers == 2
    assert ours.model.parameters == sum(p.numel() for p in model.parameters())


@torch.inference_mode()
def test_a_decoder(decoder):
    model, tokenizer = upstream(decoder, "AutoModelForCausalLM")
    prompt = tokenizer("Today I", return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=6, do_sample=False, pad_token_id=0)
    theirs = model(written, output_attentions=True)
    ours = explain("Today I", str(decoder), max_new_tokens=6)

    length = prompt["input_ids"].shape[1]
    assert [token.id for token in ours.tokens] == written[0].tolist()
    assert [token.generated for token in ours.tokens].index(True) == length
    np.testing.assert_allclose(ours.attention["self"].pattern, torch.cat(theirs.attentions).numpy(), atol=1e-5)
    probabilities = theirs.logits[0].softmax(-1)
    for step in ours.steps:
        expected = probabilities[step.position - 1, step.picked.id].item()
        assert step.picked.probability == pytest.approx(expected, abs=1e-5)
        assert step.picked.id == written[0, step.position]
    assert [answer.id for answer in ours.answers] == probabilities[length - 1].topk(10).indices.tolist()
    assert ours.generated == tokenizer.decode(written[0, length:], skip_special_tokens=True)


@torch.inference_mode()
def test_an_encoder_decoder(t5):
    model, tokenizer = upstream(t5, "AutoModelForSeq2SeqLM")
    encoding = tokenizer(TEXT, return_tensors="pt")
    encoding.pop("token_type_ids", None)
    written = model.generate(**encoding, max_new_tokens=5, do_sample=False)
    theirs = model(**encoding, decoder_input_ids=written, output_attentions=True)
    ours = explain(TEXT, str(t5), max_new_tokens=5)

    assert [token.id for token in ours.target] == written[0].tolist()
    for name, values in [
        ("encoder", theirs.encoder_attentions),
        ("decoder", theirs.decoder_attentions),
        ("cross", theirs.cross_attentions),
    ]:
        np.testing.assert_allclose(ours.attention[name].pattern, torch.cat(values).numpy(), atol=1e-5)
    assert ours.shown == "cross"
    assert explain(TEXT, str(t5), attention="encoder").shown == "encoder"


@torch.inference_mode()
def test_a_masked_word(tmp_path):
    folder = tiny.classifier(tmp_path, head="BertForMaskedLM")
    model, tokenizer = upstream(folder, "AutoModelForMaskedLM")
    encoding = tokenizer("a [MASK] film", return_tensors="pt")
    expected = model(**encoding).logits[0, 2].softmax(-1)
    (step,) = explain("a [MASK] film", str(folder)).steps
    assert step.position == 2
    assert [candidate.id for candidate in step.candidates] == expected.topk(10).indices.tolist()
    assert step.picked.probability == pytest.approx(expected.max().item(), abs=1e-5)


@torch.inference_mode()
def test_labels_of_tokens(tmp_path):
    folder = tiny.classifier(tmp_path, head="BertForTokenClassification")
    model, tokenizer = upstream(folder, "AutoModelForTokenClassification")
    shares = model(**tokenizer(TEXT, return_tensors="pt")).logits[0].softmax(-1)
    ours = explain(TEXT, str(folder))
    assert ours.kind == "token-labels"
    assert [step.position for step in ours.steps] == [t.index for t in ours.tokens if not t.special]
    for step in ours.steps:
        want = shares[step.position]
        assert step.picked.id == int(want.argmax()) and step.picked.label == model.config.id2label[step.picked.id]
        assert step.picked.probability == pytest.approx(float(want.max()), abs=1e-5)
    assert [a.probability for a in ours.answers] == pytest.approx(sorted(shares[ours.token].tolist())[::-1], abs=1e-5)
    named = [step for step in ours.steps if step.picked.label != "LABEL_0"] or ours.steps
    assert ours.token == max(named, key=lambda step: step.picked.probability).position
    assert explain(TEXT, str(folder), token="EU").token == 5


@torch.inference_mode()
def test_an_answer_to_a_question(tmp_path):
    folder = tiny.classifier(tmp_path, labels=2, head="BertForQuestionAnswering")
    model, tokenizer = upstream(folder, "AutoModelForQuestionAnswering")
    context = "a good film is great, and not bad"
    encoding = tokenizer("is the film good", context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoding.pop("offset_mapping")[0].tolist()
    out = model(**encoding)
    ours = explain("is the film good", str(folder), context=context)
    assert ours.kind == "span" and ours.text == f"is the film good {context}"
    best = [
        (float(out.start_logits[0, i] + out.end_logits[0, j]), context[offsets[i][0] : offsets[j][1]])
        for i in range(len(offsets))
        for j in range(i, len(offsets))
        if encoding.sequence_ids(0)[i] == encoding.sequence_ids(0)[j] == 1
    ]
    want = sorted(best, reverse=True)[:10]
    assert [a.label for a in ours.answers] == [label for _, label in want]
    assert [a.logit for a in ours.answers] == pytest.approx([logit for logit, _ in want], abs=1e-4)
    total = torch.tensor([logit for logit, _ in best]).softmax(0).max()
    assert ours.answers[0].probability == pytest.approx(float(total), abs=1e-5)
    assert ours.generated == ours.answers[0].label
    assert [ours.text[t.start : t.end].lower() for t in ours.tokens if not t.special][-3:] == ["and", "not", "bad"]
    for asked in ({}, {"context": " "}):
        with pytest.raises(InputError, match="pass context="):
            explain("is the film good", str(folder), **asked)


@torch.inference_mode()
def test_a_choice(tmp_path):
    folder = tiny.classifier(tmp_path, head="BertForMultipleChoice")
    model, tokenizer = upstream(folder, "AutoModelForMultipleChoice")
    choices = ["a good film", "not great", "bad"]
    encoding = tokenizer(["i believe"] * 3, choices, return_tensors="pt", padding=True)
    want = model(**{name: value[None] for name, value in encoding.items()}).logits[0]
    ours = explain("i believe", str(folder), choices=choices)
    assert ours.kind == "choices" and [a.label for a in ours.answers] == choices
    assert [a.logit for a in ours.answers] == pytest.approx(want.tolist(), abs=1e-4)
    assert [a.probability for a in ours.answers] == pytest.approx(want.softmax(0).tolist(), abs=1e-5)
    assert ours.text == f"i believe {choices[int(want.argmax())]}"
    for asked, said in (
        ({}, "two or more choices="),
        ({"choices": ["bad"]}, "two or more choices="),
        ({"choices": ["bad", ""]}, "choice 2 of 2 is empty: ''"),
        ({"choices": [" ", "bad"]}, "choice 1 of 2 is empty: ' '"),
        ({"choices": ["bad", "good", "bad"]}, "choices 1 and 3 are the same: 'bad'"),
    ):
        with pytest.raises(InputError, match=said):
            explain("i believe", str(folder), **asked)


def test_a_context_or_choices_that_nothing_reads_are_an_error(classifier):
    for asked in ({"context": "a film"}, {"choices": ["good", "bad"]}):
        with pytest.raises(InputError, match="eave"):
            explain(TEXT, str(classifier), **asked)


def test_what_is_passed_on_names_no_folder_of_this_machine(classifier):
    model = cutaway.AutoModelForSequenceClassification.from_pretrained(str(classifier))
    tokenizer = cutaway.AutoTokenizer.from_pretrained(str(classifier))
    for shown in (explain(TEXT, str(classifier)), explain(TEXT, model, tokenizer)):
        assert shown.model.name == classifier.name
        assert str(classifier.parent) not in shown.to_json()


def test_gaps_of_one_text_are_told_apart_wherever_tokens_are_named(tmp_path):
    from cutaway.auto import AutoModelForMaskedLM, AutoTokenizer
    from cutaway.commands.subject import Subject
    from cutaway.inspect import logit_lens

    folder = str(tiny.classifier(tmp_path, head="BertForMaskedLM"))
    text, gaps = "a [MASK] film [MASK] good", ["[MASK] 1", "[MASK] 2"]
    ours = explain(text, folder, evidence=True)
    assert [ours.tokens[step.position].label for step in ours.steps] == gaps
    assert ours.evidence.answer == f"{ours.steps[0].picked.label} at [MASK] 1"
    table = ours.sheet().parts[-1]
    assert table.title == "filled in" and [row[1] for row in table.rows] == gaps
    assert explain(text, folder, token="[MASK] 2").token == ours.steps[1].position
    subject = Subject.load(folder, {})
    inputs = subject.inputs(text)
    assert [label for label in subject.labels(inputs["input_ids"][0]) if "MASK" in label] == gaps
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    lens = logit_lens(model.eval(), inputs).named(tokenizer, inputs["input_ids"])
    assert [label for label in lens.axis(inputs["input_ids"].shape[1], places=False) if "MASK" in label] == gaps
    alone = explain("a [MASK] film", folder)  # one gap needs no number
    assert [token.label for token in alone.tokens if "MASK" in token.label] == ["[MASK]"]


def test_a_checkpoint_without_a_head(tmp_path):
    ours = explain(TEXT, str(tiny.classifier(tmp_path, head="BertModel")))
    assert ours.kind == "states"
    assert ours.answers == ours.steps == []


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForQuestionAnswering", "Model"])
@pytest.mark.parametrize("family", ["Bart", "T5"])
def test_what_reads_a_text_twice_is_refused_by_name(tmp_path, family, head):
    import cutaway

    tokenizer = tiny.wordpiece()
    config = getattr(cutaway, f"{family}Config")(
        vocab_size=len(tokenizer), d_model=16, num_labels=2, decoder_start_token_id=2, pad_token_id=0, eos_token_id=3,
        **{"T5": {"d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
           "Bart": {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16,
                    "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "max_position_embeddings": 32}}[family],
    )  # fmt: skip
    tiny.save(tmp_path, getattr(cutaway, f"{family}{head}")(config), tokenizer)
    with pytest.raises(InputError, match=f"{family}{head} reads a text twice"):
        explain(TEXT, str(tmp_path))


def test_a_last_state_that_is_projected_to_another_width_is_shown_before_it(tmp_path):
    """OPT's smallest but one: narrow embeddings, and a narrow last state."""
    from parity.tiny_models import make

    tokenizer = tiny.wordpiece()
    theirs = make("opt-narrow", "ForCausalLM", vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=3)
    folder = tiny.save(tmp_path, theirs, tokenizer)
    found = explain(TEXT, str(folder), max_new_tokens=0, evidence=True)
    with torch.no_grad():
        states = theirs(**tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False),
                        output_hidden_states=True).hidden_states  # fmt: skip
    model = cutaway.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad(), model.record("blocks.2.resid") as seen:
        model(**tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False))
    want = torch.cat([*states[:-1], seen["blocks.2.resid"]]).numpy()  # [states, L, H]
    assert want.shape[-1] != states[-1].shape[-1]
    np.testing.assert_allclose(found.states["self"].first, want[:, :, :8], atol=1e-4)
    np.testing.assert_allclose(found.states["self"].norm, np.linalg.norm(want, axis=-1), rtol=1e-4)


def test_the_encoder_of_an_encoder_decoder_is_explained_alone(tmp_path):
    import cutaway

    tokenizer = tiny.wordpiece()
    config = cutaway.T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    tiny.save(tmp_path, cutaway.T5EncoderModel(config), tokenizer)
    ours = explain(TEXT, str(tmp_path), evidence=True)
    assert ours.kind == "states" and ours.model.class_name == "T5EncoderModel"
    assert ours.evidence.attributions


def test_the_certificate(classifier, decoder, t5):
    """A small number for a head of this model; a pattern that is not the one in use would have a large one."""
    for folder in (classifier, decoder, t5):
        found = explain(TEXT, str(folder), max_new_tokens=2)
        assert found.certificate.error < 1e-5 and found.certificate.address.endswith(".pattern")
        assert found.to_dict()["certificate"]["head"] == found.certificate.head


def test_an_encoder_runs_once(classifier):
    from cutaway.auto import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(str(classifier))
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    explain(TEXT, model, AutoTokenizer.from_pretrained(str(classifier)))
    assert len(calls) == 1


def test_the_shown_head(classifier):
    found = explain(TEXT, str(classifier)).head
    focus = found.measures["focus"]
    assert focus[found.layer, found.head] == focus.max()
    asked = explain(TEXT, str(classifier), layer=1).head
    assert asked.layer == 1
    assert asked.place == "blocks.1.attn.pattern"
    assert focus[1, asked.head] == focus[1].max()


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text(classifier, text):
    with pytest.raises(InputError, match="empty"):
        explain(text, str(classifier))


def test_a_long_text(classifier):
    with pytest.raises(InputError, match="64"):
        explain("good " * 100, str(classifier))
    assert len(explain("good " * 100, str(classifier), truncation=True).tokens) == 64


def test_nothing_is_generated_when_not_wanted(decoder, t5):
    assert explain("ab", str(decoder), max_new_tokens=0).steps == []
    assert len(explain("a good film", str(t5), max_new_tokens=0).target) == 1


HEADS = {
    "Bart": "ForConditionalGeneration",
    "MBart": "ForConditionalGeneration",
    "Marian": "MTModel",
    "Pegasus": "ForConditionalGeneration",
}
SEQ2SEQ_SIZES = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": 2, "decoder_start_token_id": 0, "forced_eos_token_id": None,
}  # fmt: skip


@pytest.mark.parametrize("family", HEADS)
def test_an_encoder_decoder_is_explained(family):
    tokenizer = cutaway.AutoTokenizer.from_pretrained("cutaway/sentiment", padding_side="right")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    config = getattr(cutaway, f"{family}Config")(vocab_size=len(tokenizer), **SEQ2SEQ_SIZES)
    model = getattr(cutaway, f"{family}{HEADS[family]}")(config).eval()
    assert kind_of(model) == "target"
    found = explain("A warm, funny film.", model, tokenizer, max_new_tokens=2)
    assert (found.model.layers, found.model.heads, found.model.hidden_size) == (2, 2, 16)
