"""One rule of positions for every family and head: a text gives the same alone, right-padded and left-padded, and words
that its mask hides in the middle keep their places. Transformers, given the same text and mask, is the measure.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import FAMILIES, FINAL, LAYERS, TOLERANCE, gap, inputs, padded, pair, real_values, texts
from parity.tiny_models import CLASSIFYING, ENCODER_DECODERS, EVERY_HEAD, VARIANTS, decoder_fields
from torch import Tensor

from cutaway.errors import GenerationError, InputError
from cutaway.nn import packed_batch

PAD = 0
# of each text its length and the words that its mask hides: one, none, several, two side by side
TEXTS = ((9, (3,)), (5, ()), (11, (1, 5, 6, 9)), (9, (2, 3)))
TARGETS = ((6, (2,)), (8, (1, 4)), (3, ()), (7, (3, 4, 5)))
ENDS = 2
SEQ2SEQ = ("ForConditionalGeneration", "MTModel")
DECODERS = {"gpt2": "LMHeadModel", "llama": "ForCausalLM", "bert": "LMHeadModel", "roberta": "ForCausalLM"}
DECODERS |= dict.fromkeys(VARIANTS, "ForCausalLM")
FIELDS = {"pad_token_id": PAD, "eos_token_id": ENDS, "decoder_start_token_id": ENDS}


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def laid_out(shapes: tuple[tuple[int, tuple[int, ...]], ...], side: str, seed: int, end: int | None = None) -> Any:
    """(ids, mask) of a batch; with `end`, every text ends with that id."""
    given = texts(tuple(n for n, _ in shapes), seed=seed)
    longest = max(n for n, _ in shapes)
    ids = torch.full((len(given), longest), PAD)
    mask = torch.zeros_like(ids)
    for b, (text, (n, hidden)) in enumerate(zip(given, shapes, strict=True)):
        if end is not None:
            text[-1] = end
        first = 0 if side == "right" else longest - n
        ids[b, first : first + n], mask[b, first : first + n] = text, 1
        mask[b, [first + i for i in hidden]] = 0
    return ids, mask


def batch(family: str, ending: str, side: str) -> dict[str, Tensor]:
    """The four texts, padded on this side."""
    reads_again = family in ENCODER_DECODERS and ending not in (*SEQ2SEQ, "Model")
    ids, mask = laid_out(TEXTS, side, 1, ENDS if reads_again else None)
    found = {"input_ids": ids, "attention_mask": mask}
    if family in ENCODER_DECODERS and not reads_again:
        found["decoder_input_ids"], found["decoder_attention_mask"] = laid_out(TARGETS, side, 2)
    return found


def alone(family: str, ending: str) -> list[dict[str, Tensor]]:
    """Each text by itself, without padding."""
    given = batch(family, ending, "right")
    found = []
    for b in range(len(TEXTS)):
        own = {}
        for name, value in given.items():
            n = (TARGETS if name.startswith("decoder") else TEXTS)[b][0]
            own[name] = value[b : b + 1, :n]
        found.append(own)
    return found


def flat(out: Any, given: dict[str, Tensor], ending: str) -> dict[str, Tensor]:
    """Every output at real tokens, text after text, as one row of numbers each."""
    found = {}
    for name in FINAL:
        if name in out:
            of_texts = ("ForSequenceClassification", "ForMultipleChoice", "ForNextSentencePrediction")
            one = ending in of_texts and name == "logits"
            found[name] = out[name].flatten() if one else real_values(name, out[name], given)
    for name in LAYERS:
        for i, value in enumerate(out.get(name) or ()):
            found[f"{name}[{i}]"] = real_values(name, value, given)
    return found


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def check(found: dict[str, Tensor], wanted: dict[str, Tensor], where: str) -> None:
    assert found.keys() >= wanted.keys(), where
    for name, value in wanted.items():
        assert gap(found[name], value) < TOLERANCE, (where, name)


@pytest.mark.parametrize(("family", "ending"), [*((family, "Model") for family in FAMILIES), *EVERY_HEAD])
def test_alone_right_padded_and_left_padded_with_hidden_words(family: str, ending: str) -> None:
    theirs, ours = pair(family, ending, **decoder_fields(family, ending), **FIELDS)
    asked = {"output_hidden_states": True, "output_attentions": True} if ending == "Model" else {}
    shown = (
        (lambda given: {n: torch.stack((x, x.roll(0)), 1) for n, x in given.items()}) if "Multiple" in ending else dict
    )
    singles = alone(family, ending)
    wanted = joined([flat(theirs(**shown(own), **asked), own, ending) for own in singles])
    check(joined([flat(ours(**shown(own), **asked), own, ending) for own in singles]), wanted, "alone")
    for side in ("right", "left"):
        given = batch(family, ending, side)
        check(flat(ours(**shown(given), **asked), given, ending), wanted, side)


@pytest.mark.parametrize(
    "family",
    [
        f
        for f in FAMILIES
        if f not in (*ENCODER_DECODERS, "mpnet", "opt", "opt-narrow", "distilbert", "deberta-v2", "bloom", "xlnet")
    ],
)
def test_explicit_positions_reproduce_left_padding(family: str) -> None:
    """Upstream counts left padding unless it is told where each text begins."""
    theirs, ours = pair(family, "Model", **FIELDS)
    given = batch(family, "Model", "left")
    first = given["attention_mask"].argmax(1, keepdim=True)
    place = (torch.arange(given["input_ids"].shape[1]) - first).clamp(min=0)
    place = place + (PAD + 1) if family in ("roberta", "xlm-roberta", "camembert") else place
    wanted = flat(theirs(**given, position_ids=place), given, "Model")
    wanted.pop("pooler_output", None)  # upstream reads the first column, whatever stands there
    check(flat(ours(**given), given, "Model"), wanted, "without")
    check(flat(ours(**given, position_ids=place), given, "Model"), wanted, "with")


def continued(family: str) -> tuple[Any, Any]:
    ending = DECODERS.get(family, "MTModel" if family.startswith("marian") else "ForConditionalGeneration")
    return pair(family, ending, **decoder_fields(family, ending), **FIELDS)


@pytest.mark.parametrize("family", [*DECODERS, *ENCODER_DECODERS])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_cache_goes_on_from_hidden_words(family: str, side: str, tmp_path: Any) -> None:
    """One new token, then several, then one after texts were dropped, repeated and cut: each as in the whole text."""
    theirs, ours = continued(family)
    prefix = "decoder_" if family in ENCODER_DECODERS else ""
    ids, mask = laid_out(TEXTS, side, 1)
    more = torch.stack(texts((9,) * len(TEXTS), seed=3))
    source = {}
    if prefix:
        read, seen = laid_out(TARGETS, side, 2)
        source = {"encoder_outputs": ours.encode(read, seen), "attention_mask": seen}

    def whole(b: int, end: int, own: Tensor | None = None, text: int | None = None) -> Tensor:
        """Upstream's logits of text b and `end` tokens more; `own` and `text`: another continuation of another text."""
        n, real = TEXTS[b][0], mask[b].nonzero()[:, 0]
        first = int(real[0])
        given = torch.cat((ids[b, first : first + n], more[b, :end] if own is None else own))[None]
        seen = torch.cat((mask[b, first : first + n], torch.ones(given.shape[1] - n, dtype=mask.dtype)))[None]
        inputs = {f"{prefix}input_ids": given, f"{prefix}attention_mask": seen}
        if prefix:
            m = TARGETS[b][0]
            begin = 0 if side == "right" else source["attention_mask"].shape[1] - m
            inputs["input_ids"] = laid_out(TARGETS, side, 2)[0][b : b + 1, begin : begin + m]
            inputs["attention_mask"] = source["attention_mask"][b : b + 1, begin : begin + m]
        return theirs(**inputs).logits[0]

    out = ours(**{f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}, **source, use_cache=True)
    cache, at = out.past_key_values, 0
    for n, looking in ((1, False), (3, True), (1, True), (1, False)):
        new = {f"{prefix}input_ids": more[:, at : at + n]}
        out = ours(**new, **source, past_key_values=cache, use_cache=True, output_attentions=looking)
        at += n
        for b in range(len(TEXTS)):
            assert gap(out.logits[b], whole(b, at)[-n:]) < TOLERANCE, (b, at)
    cache.save(tmp_path / "cache")
    cache = type(cache).load(tmp_path / "cache")
    if prefix:
        return
    index = torch.tensor([2, 0, 2])
    cache.select(index)
    real = [int(mask[i].sum()) for i in index.tolist()]
    kept = [real[0] + 2, real[1] + 5, real[2]]
    cache.crop(kept)
    other = cache.copy()
    for held in (cache, other):
        out = ours(more[:3, 8:], past_key_values=held)
        for row, (b, n) in enumerate(zip(index.tolist(), (2, 5, 0), strict=True)):
            assert gap(out.logits[row], whole(b, 0, torch.cat((more[b, :n], more[row, 8:])))[-1:]) < TOLERANCE, row


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "smollm3", "opt", "roberta", "t5", "bart"])
def test_generate_goes_on_from_hidden_words(family: str) -> None:
    """With a cache and without, with beams and guesses, padded on either side: as upstream's forward says."""
    theirs, ours = continued(family)
    name = "decoder_" if family in ENCODER_DECODERS else ""
    new, settings = 6, {"max_new_tokens": 6, "eos_token_id": None, "pad_token_id": PAD, "forced_eos_token_id": None}
    wanted = []
    for own in alone(family, "Model"):
        ids, seen = own[f"{name}input_ids"], own[f"{name}attention_mask"]
        if name:
            ids[:, 0] = ENDS  # the decoder's text begins so
        for _ in range(new):
            token = theirs(**{**own, f"{name}input_ids": ids, f"{name}attention_mask": seen}).logits[:, -1].argmax(-1)
            ids = torch.cat((ids, token[:, None]), 1)
            seen = torch.cat((seen, torch.ones_like(seen[:, :1])), 1)
        wanted.append(ids[0, -new:].tolist())
    for side in ("right", "left"):
        given = batch(family, "Model", side)
        if name:
            for row, seen in zip(given["decoder_input_ids"], given["decoder_attention_mask"], strict=True):
                row[int(seen.argmax())] = ENDS
        for more in ({}, {"use_cache": False}):
            assert ours.generate(**given, **settings, **more)[:, -new:].tolist() == wanted, (side, more)
        asked = {"return_dict_in_generate": True, "output_hidden_states": True}
        assert ours.generate(**given, **settings, **asked).sequences[:, -new:].tolist() == wanted, side
    one = {n: x[2:3] for n, x in batch(family, "Model", "right").items()}
    if not name:
        longest = one["input_ids"].shape[1]
        guessed = ours.generate(**one, **settings, prompt_lookup_num_tokens=3)
        assert guessed[0, longest:].tolist() == wanted[2]
        beams = ours.generate(**one, **settings, num_beams=3)
        assert torch.equal(beams, ours.generate(**one, **settings, num_beams=3, use_cache=False))


@pytest.mark.parametrize("family", ["gpt2", "llama", *CLASSIFYING])
@pytest.mark.parametrize("inside", [False, True])
def test_a_decoder_that_classifies_reads_one_token_whatever_pads(family: str, inside: bool) -> None:
    """The padding id ends texts too, as GPT-2's users have it, and stands inside of them."""
    theirs, ours = pair(family, "ForSequenceClassification", num_labels=3, pad_token_id=ENDS, eos_token_id=ENDS)
    singles = texts((6, 4, 7))
    for text in singles:
        text[-1] = ENDS
        if inside:
            text[1] = text[-2] = ENDS
    wanted = torch.cat([theirs(text[None]).logits for text in singles])
    for b, text in enumerate(singles):
        assert gap(ours(text[None]).logits[0], wanted[b]) < TOLERANCE
        assert gap(ours(text[None], torch.ones_like(text[None])).logits[0], wanted[b]) < TOLERANCE
    for side in ("right", "left"):
        ids, mask = torch.full((3, 7), ENDS), torch.zeros(3, 7, dtype=torch.int64)
        for b, text in enumerate(singles):
            where = slice(0, len(text)) if side == "right" else slice(7 - len(text), 7)
            ids[b, where], mask[b, where] = text, 1
        assert gap(ours(ids, mask).logits, wanted) < TOLERANCE, side


@pytest.mark.parametrize("family", ["bart", "mbart", "t5"])
def test_an_encoder_decoder_that_classifies_reads_the_text_s_own_end(family: str) -> None:
    theirs, ours = pair(family, "ForSequenceClassification", **FIELDS)
    singles = texts((6, 4, 7))
    for text in singles:
        text[-1] = ENDS
    wanted = torch.cat([theirs(text[None]).logits for text in singles])
    for side in ("right", "left"):
        ids, mask = torch.full((3, 7), ENDS), torch.zeros(3, 7, dtype=torch.int64)
        for b, text in enumerate(singles):
            where = slice(0, len(text)) if side == "right" else slice(7 - len(text), 7)
            ids[b, where], mask[b, where] = text, 1
        if family == "mbart":  # it finds the last token by the padding id
            ids[mask == 0] = PAD
        assert gap(ours(ids, mask).logits, wanted) < TOLERANCE, side


WITH_HEAD_DIM = ("llama", "mistral", "smollm3", "gemma2", "gemma3_text", "granite", "qwen3_moe")
SERVED = (
    *(*WITH_HEAD_DIM, "modernbert", "t5", "mpnet", "gpt_neox", "phi3"),
    *("olmo2", "cohere", "cohere2", "stablelm", "falcon", "bloom", "gpt_neo"),
)
# in bfloat16 a token may go to another expert; and Cohere's scores, normed by large weights, are as far off upstream
IN_HALF = tuple(family for family in SERVED if family not in ("qwen3_moe", "cohere"))


@pytest.mark.parametrize(
    ("family", "dtype"), [*((f, torch.float32) for f in SERVED), *((f, torch.bfloat16) for f in IN_HALF)]
)
def test_heads_that_the_kernels_serve(family: str, dtype: torch.dtype) -> None:
    """With hidden words too: each text beside others as by itself, and the next tokens as in the whole text."""
    wide = {"hidden_size": 128, "head_dim": 32} if family != "t5" else {"d_kv": 32}
    if family != "t5" and family not in WITH_HEAD_DIM:
        del wide["head_dim"]
    ending = {"t5": "ForConditionalGeneration", "modernbert": "Model", "mpnet": "Model"}.get(family, "ForCausalLM")
    theirs, ours = pair(family, ending, **FIELDS, **wide)
    name = "decoder_" if family == "t5" else ""
    singles = alone(family, "Model")
    wanted = [theirs(**own)[0][0] for own in singles]
    close = TOLERANCE if dtype == torch.float32 else 0.05
    ours = ours.to(dtype)
    for side in ("right", "left"):
        given = batch(family, "Model", side)
        found = ours(**given)[0]
        for b, own in enumerate(wanted):
            real = given[f"{name}attention_mask"][b].bool()
            shown = singles[b][f"{name}attention_mask"][0].bool()
            assert gap(found[b, real].float(), own[shown].float()) < close, (side, b)
        if ending == "Model" or name:
            continue
        settings = {"max_new_tokens": 6, "eos_token_id": None, "pad_token_id": PAD}
        told = ours.generate(**given, **settings)
        if dtype == torch.float32:
            assert torch.equal(told, ours.generate(**given, **settings, use_cache=False)), side


@pytest.mark.parametrize(
    ("family", "ending"),
    [
        ("gpt2", "LMHeadModel"), ("llama", "ForCausalLM"), ("mistral", "ForCausalLM"), ("opt", "ForCausalLM"),
        ("bert", "ForMaskedLM"), ("bert", "ForTokenClassification"), ("modernbert", "ForMaskedLM"),
        ("mpnet", "ForMaskedLM"), ("roberta", "ForTokenClassification"), ("bloom", "ForCausalLM"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("n_texts", [1, 24])
def test_a_label_may_be_asked_of_a_hidden_word(family: str, ending: str, n_texts: int) -> None:
    """Such words are computed then, as upstream does; a batch too large to stay padded by itself does the same."""
    theirs, ours = pair(family, ending, **FIELDS, **({"num_labels": 99} if "Token" in ending else {}))
    theirs.set_attn_implementation("sdpa")  # what sees nothing at all gets zeros
    given = {name: x.repeat(n_texts, 1) for name, x in batch(family, ending, "right").items()}
    with torch.enable_grad():
        wanted_out = theirs(**given, labels=given["input_ids"])
        found = ours(**given, labels=given["input_ids"])
    assert gap(found.loss, wanted_out.loss) < TOLERANCE
    asked = given["attention_mask"] == 0
    asked[:, 1:] &= given["attention_mask"].cumsum(1)[:, :-1] > 0
    assert gap(found.logits[asked], wanted_out.logits[asked]) < TOLERANCE
    found.loss.backward()
    wanted_out.loss.backward()
    wanted = dict(theirs.named_parameters())
    assert wanted
    for name, weight in ours.named_parameters():
        if weight.grad is not None and float(wanted[name].grad.abs().max()) > 1e-6:
            assert gap(weight.grad, wanted[name].grad) < 1e-4, name  # the row of the padding too


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vector_of_padding_is_trained_where_upstreams_is(family: str) -> None:
    theirs, ours = pair(family, pad_token_id=PAD)
    spec = ours.architecture
    for stack in (spec.stack, spec.decoder or spec.stack):
        assert stack.embedding.pad_id == getattr(theirs.get_input_embeddings(), "padding_idx", None)


@pytest.mark.parametrize("family", ["t5", "umt5"])
def test_t5_learns_from_its_padding(family: str) -> None:
    theirs, ours = pair(family, "ForTokenClassification", pad_token_id=PAD, num_labels=99)
    ids, mask = padded(texts((8, 5, 3)), "right", PAD)
    with torch.enable_grad():
        mine, yours = ours(ids, mask, labels=ids), theirs(ids, mask, labels=ids)
        mine.loss.backward()
        yours.loss.backward()
    assert gap(mine.loss, yours.loss) < TOLERANCE
    found, wanted = (model.get_input_embeddings().weight.grad[PAD] for model in (ours, theirs))
    assert float(wanted.abs().max()) > 1e-4 and gap(found, wanted) < 1e-4


def test_a_label_of_a_hidden_word_is_an_error_where_no_such_word_is_computed() -> None:
    """DeBERTa's words are hidden from themselves as well."""
    _, ours = pair("deberta-v2", "ForTokenClassification", **FIELDS, num_labels=99)
    given = batch("deberta-v2", "Model", "right")
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    with pytest.raises(InputError, match=r"labels\[0, 3\] is asked of token 3, which attention_mask hides"):
        ours(**given, labels=labels.index_fill(1, torch.tensor([3]), 7))


def test_what_is_kept_beside_an_answer_of_hidden_words_goes_on_as_ever() -> None:
    """The cache holds what the mask shows."""
    _, ours = pair("llama", "ForCausalLM", **FIELDS)
    given = batch("llama", "ForCausalLM", "right")
    held = [ours(**given, **more, use_cache=True).past_key_values for more in ({}, {"labels": given["input_ids"]})]
    assert torch.equal(held[0].columns, held[1].columns)
    token = torch.full((given["input_ids"].shape[0], 1), 7)
    one, other = (ours(token, past_key_values=cache).logits for cache in held)
    assert gap(other, one) < TOLERANCE


@pytest.mark.parametrize("small", [0, 128], ids=["packed", "small"])
@pytest.mark.parametrize(
    ("family", "ending"),
    [
        ("gpt2", "LMHeadModel"), ("llama", "ForCausalLM"), ("bert", "ForMaskedLM"), ("bert", "ForTokenClassification"),
        ("bart", "ForConditionalGeneration"), ("t5", "ForConditionalGeneration"),
    ],
)  # fmt: skip
def test_labels_at_padding_are_asked_as_upstream_asks_them(
    family: str, ending: str, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the batch is laid out: who copies the ids of texts padded with the end token teaches a model to stop."""
    monkeypatch.setattr(packed_batch, "SMALL", small)
    theirs, ours = pair(family, ending, **({"num_labels": 99} if "Token" in ending else {}))
    given = inputs(family, (9, 4, 7), "right", ours.config.pad_token_id or 0)
    labels = given["decoder_input_ids" if family in ENCODER_DECODERS else "input_ids"]
    with torch.no_grad():
        assert gap(ours(**given, labels=labels).loss, theirs(**given, labels=labels).loss) < TOLERANCE


def test_generate_refuses_what_hidden_words_cannot_have() -> None:
    ours = continued("llama")[1]
    given = {n: x[:1] for n, x in batch("llama", "Model", "right").items()}
    cache = ours(**given, use_cache=True).past_key_values
    plain = ours(given["input_ids"][:, :4], use_cache=True).past_key_values
    whole = torch.cat((given["input_ids"][:, :9], torch.tensor([[7]])), 1)
    for fields, message in (
        ({"input_ids": whole, "past_key_values": cache}, "past_key_values was made from a text with words"),
        ({**given, "past_key_values": plain}, "hides 1 words in the middle of prompt 0, and past_key_values"),
        ({**given, "output_logprobs": 1, "return_dict_in_generate": True}, "and output_logprobs"),
    ):
        with pytest.raises(GenerationError, match=message):
            ours.generate(**fields, max_new_tokens=2)
