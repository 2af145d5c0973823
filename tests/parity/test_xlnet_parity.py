"""What only XLNet has, against transformers: two streams, earlier states, segments, and how it writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import tiny
import torch
import transformers
from parity.pairs import TOLERANCE, gap, load, pair
from safetensors.torch import load_file
from serve_app import serving
from torch import Tensor
from typer.testing import CliRunner

import cutaway
from cutaway.cli import app
from cutaway.errors import GenerationError, InputError
from cutaway.inspect import explain, written_attribution
from cutaway.inspect.trace.trace import Trace
from cutaway.serve.service import Service
from cutaway.studio.asked import asked_of
from cutaway.studio.live_run import LiveRun

ALL = {"output_attentions": True, "output_hidden_states": True}
IDS = torch.randint(6, 99, (3, 9), generator=torch.Generator().manual_seed(4))
TYPES = torch.randint(0, 3, (3, 9), generator=torch.Generator().manual_seed(5))


def mask(kind: str) -> Tensor:
    shown = torch.ones(3, 9, dtype=torch.long)
    if kind == "right":
        shown[0, 6:] = 0
        shown[1, 8:] = 0
    elif kind == "left":
        shown[0, :3] = 0
        shown[2, :2] = 0
    elif kind == "hole":
        shown[0, 3:5] = 0
        shown[2, 2] = 0
    return shown


def permuted() -> dict[str, Tensor]:
    """An order of words, in which some targets see no word at all, and four places that are asked for."""
    perm = (torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(6)) < 0.4).float()
    perm[0, 1] = 1.0
    places = torch.zeros(3, 4, 9)
    places[:, torch.arange(4), torch.tensor([1, 4, 6, 8])] = 1.0
    places[1, 2] = torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0])  # no one place
    return {"perm_mask": perm, "target_mapping": places}


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [one for part in value for one in flat(part)]


def compare(ours: Any, theirs: Any, real: Tensor | None = None) -> None:
    """Every tensor of an output; of states [batch, length, ...] only those at `real`."""
    assert set(theirs) == set(ours)
    for name in theirs:
        pairs = list(zip(flat(ours[name]), flat(theirs[name]), strict=True))
        assert pairs
        for mine, yours in pairs:
            if real is not None and mine.shape[:2] == real.shape:
                mine, yours = mine[real], yours[real]
            assert gap(mine, yours) < TOLERANCE, name


@pytest.mark.parametrize("fields", [{}, {"clamp_len": 3}, {"mem_len": 4}, {"reuse_len": 5, "mem_len": 7}], ids=str)
@torch.no_grad()
def test_segments_and_what_is_kept(fields: dict[str, Any]) -> None:
    theirs, ours = pair("xlnet", **fields)
    for types in ({}, {"token_type_ids": TYPES}):
        mine, yours = ours(IDS, **types, **ALL), theirs(IDS, **types, **ALL)
        compare(mine, yours)
        assert len(mine.mems) == 3 and mine.mems[0].shape == yours.mems[0].shape
    assert ours(IDS, use_mems=False).mems is None
    assert tuple(map(len, (ours(IDS, return_dict=False), theirs(IDS, return_dict=False)))) == (2, 2)


@pytest.mark.parametrize("kind", ["none", "right", "left", "hole"])
@torch.no_grad()
def test_two_streams_after_an_earlier_text(kind: str) -> None:
    theirs, ours = pair("xlnet")
    shown = mask(kind)
    given = {"input_ids": IDS, "token_type_ids": TYPES}
    mine, yours = (
        model(**given, attention_mask=shown.to(dtype), use_mems=True, **ALL)
        for model, dtype in ((ours, torch.long), (theirs, torch.float))
    )
    compare(mine, yours)  # padding too
    packed = ours(**given, attention_mask=shown, use_mems=False, output_hidden_states=True)
    compare(packed, {name: yours[name] for name in ("last_hidden_state", "hidden_states")}, shown.bool())
    after = {"input_ids": IDS.flip(1), "token_type_ids": TYPES.flip(0)}
    for more in ({}, permuted()):
        a = ours(**after, **more, input_mask=1 - shown, mems=mine.mems, **ALL)
        b = theirs(**after, **more, input_mask=1.0 - shown, mems=yours.mems, **ALL)
        assert (a.mems is None) == (kind != "none")  # not asked for, and padding would be computed for them
        compare(a, {name: b[name] for name in b if name in a})


def test_two_streams_are_trained_as_upstreams() -> None:
    theirs, ours = pair("xlnet", "LMHeadModel", dropout=0.0)
    labels = torch.randint(6, 99, (3, 4), generator=torch.Generator().manual_seed(7))
    labels[0, 2] = -100
    given = {"input_ids": IDS, **permuted(), "token_type_ids": TYPES, "labels": labels}
    mine, yours = ours(**given), theirs(**given)
    assert gap(mine.logits, yours.logits) < TOLERANCE and gap(mine.loss, yours.loss) < TOLERANCE
    mine.loss.backward()
    yours.loss.backward()
    wanted = dict(theirs.named_parameters())
    assert wanted.keys() == dict(ours.named_parameters()).keys()
    for name, p in ours.named_parameters():
        grad = wanted[name].grad
        largest = float(grad.abs().max())
        assert float((p.grad - grad).abs().max()) <= max(1e-4 * largest, 1e-6), name


@pytest.mark.parametrize("kind", ["right", "left", "hole"])
def test_labels_of_hidden_words_are_answered_as_upstreams(kind: str) -> None:
    for ending in ("LMHeadModel", "ForTokenClassification"):
        theirs, ours = pair("xlnet", ending, num_labels=99)
        given = {"input_ids": IDS, "labels": IDS}
        mine = ours(**given, attention_mask=mask(kind))
        yours = theirs(**given, attention_mask=mask(kind).float())
        assert gap(mine.loss, yours.loss) < TOLERANCE
        assert gap(mine.logits, yours.logits) < TOLERANCE


@pytest.mark.parametrize("kind", ["first", "mean", "last", "cls_index"])
@torch.no_grad()
def test_what_a_head_reads_of_a_text(kind: str) -> None:
    for fields in ({}, {"summary_use_proj": False, "summary_activation": ""}):
        theirs, ours = pair("xlnet", "ForSequenceClassification", summary_type=kind, num_labels=3, **fields)
        for model in (ours, theirs):
            model.config.use_mems_eval = False
        assert gap(ours(IDS).logits, theirs(IDS).logits) < TOLERANCE
        for side in ("left", "right"):  # as the text alone, on either side
            shown = mask(side)
            found = ours(IDS, attention_mask=shown).logits
            for row in range(3):
                assert gap(found[row], theirs(IDS[row][shown[row].bool()][None]).logits[0]) < TOLERANCE


@pytest.mark.parametrize("mem_len", [None, 5])
def test_it_writes_what_upstream_writes(mem_len: int | None) -> None:
    theirs, ours = pair("xlnet", "LMHeadModel", mem_len=mem_len, initializer_range=0.2)
    for settings in (
        {"max_new_tokens": 6},
        {"max_new_tokens": 4, "use_mems": False},
        {"max_new_tokens": 4, "num_beams": 3, "num_return_sequences": 2, "no_repeat_ngram_size": 2},
    ):
        assert torch.equal(ours.generate(IDS, **settings), theirs.generate(IDS, **settings))
    shown = mask("left")
    together = ours.generate(IDS, attention_mask=shown, max_new_tokens=5)
    for row in range(3):
        alone = ours.generate(IDS[row][shown[row].bool()][None], max_new_tokens=5)
        assert torch.equal(together[row, -5:], alone[0, -5:])
    ended = ours.generate(IDS, max_new_tokens=6, eos_token_id=int(together[1, 9]))  # one text leaves the batch
    assert torch.equal(ended, theirs.generate(IDS, max_new_tokens=6, eos_token_id=int(together[1, 9])))


def test_what_reads_texts_in_order_is_refused() -> None:
    _, ours = pair("xlnet", "LMHeadModel")
    for settings in ({"prompt_lookup_num_tokens": 3}, {"output_logprobs": True, "return_dict_in_generate": True}):
        with pytest.raises(GenerationError, match="reads it both ways"):
            ours.generate(IDS[:1], **settings)
    with pytest.raises(GenerationError, match="leave inputs_embeds out"):
        ours.generate(inputs_embeds=torch.zeros(1, 3, 32), max_new_tokens=2)
    with pytest.raises(InputError, match="no address stands for"), ours.record("blocks.0.resid"):
        ours(IDS, **permuted())
    for wrong, message in (
        ({"perm_mask": torch.zeros(3, 9, 8)}, r"perm_mask has shape \[3, 9, 8\]; it must be \[3, 9, 9\]"),
        ({"target_mapping": torch.zeros(3, 2, 8)}, r"target_mapping has shape .* it must be \[3, targets, 9\]"),
        ({"mems": [torch.zeros(2, 3, 32)]}, "mems must be 3 tensors"),
        ({"mems": "x"}, "mems='x' must be 3 tensors"),
        ({"mems": 5}, "mems=5 must be 3 tensors"),
        ({"mems": [1, 2, 3]}, r"mems=\[1, 2, 3\] must be 3 tensors"),
        ({"input_mask": torch.zeros(3, 9), "attention_mask": torch.ones(3, 9)}, "pass one of them"),
    ):
        with pytest.raises(InputError, match=message):
            ours(IDS, **wrong)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model and a model that answers questions, with a tokenizer each."""
    folder = tmp_path_factory.mktemp("read")
    tokenizer = tiny.wordpiece()
    for name, ending in (("lm", "LMHeadModel"), ("qa", "ForQuestionAnsweringSimple")):
        theirs, _ = pair("xlnet", ending, vocab_size=len(tokenizer), pad_token_id=0, initializer_range=0.5)
        tiny.save(folder / name, theirs, tokenizer)
    return folder


def test_what_foresees_a_text_from_its_beginning_is_refused(read: Path) -> None:
    ours = cutaway.AutoModelForCausalLM.from_pretrained(read / "lm")
    with pytest.raises(InputError, match=r"perplexity .* reads it both ways"):
        cutaway.pipeline("perplexity", model=str(read / "lm"))
    for asked in (
        lambda: explain("a good film", str(read / "lm")),
        lambda: Trace.of(ours, tiny.wordpiece(), "a good film"),
        lambda: LiveRun("a good film", "lm", ours, tiny.wordpiece(), 2, False),
    ):
        with pytest.raises(InputError, match=r"reads a text both ways.*generate\(output_scores=True"):
            asked()
    with pytest.raises(InputError, match="reads a text both ways"):
        written_attribution(ours, {"input_ids": IDS[:1]}, IDS[:1].repeat(1, 2))
    served = SimpleNamespace(name="lm", model=ours, explainer=tiny.wordpiece())
    with pytest.raises(InputError, match="reads a text both ways"):
        asked_of(served, "a good film")
    shown = CliRunner().invoke(app, ["perplexity", "a good film", "--model", str(read / "lm")])
    assert isinstance(shown.exception, InputError) and "reads it both ways" in str(shown.exception)


def test_a_server_explains_no_model_that_reads_both_ways(read: Path) -> None:
    pipe = cutaway.pipeline("fill-mask", model=str(read / "lm"))
    with serving(Service(pipe)) as address:
        answer = httpx.post(f"{address}/explain", json={"text": "a good film"})
    assert answer.status_code == 400 and "reads a text both ways" in answer.text


def test_it_fills_masks_as_upstream(read: Path) -> None:
    text = "a good [MASK] film was [MASK] great"
    mine = cutaway.pipeline("fill-mask", model=str(read / "lm"))(text)
    yours = transformers.pipeline("fill-mask", model=str(read / "lm"))(text)
    for ours, theirs in zip(flat_rows(mine), flat_rows(yours), strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=TOLERANCE)
        assert {**ours, "score": 0} == {**theirs, "score": 0}
    assert type(cutaway.AutoModelForMaskedLM.from_pretrained(read / "lm")) is cutaway.XLNetLMHeadModel


def flat_rows(found: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for rows in found for row in rows]


@torch.no_grad()
def test_its_answer_to_a_question_is_explained(read: Path) -> None:
    question, context = "what is it", "the film was not good and it was bad"
    ours = cutaway.AutoModelForQuestionAnswering.from_pretrained(read / "qa")
    shown = explain(question, ours, tiny.wordpiece(), context=context)
    assert shown.kind == "span"
    theirs = transformers.XLNetForQuestionAnsweringSimple.from_pretrained(read / "qa").eval()
    given = tiny.wordpiece()(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets, parts = given.pop("offset_mapping")[0].tolist(), given.sequence_ids(0)
    out = theirs(**given)
    inside = [i for i, part in enumerate(parts) if part == 1]
    spans = {(i, j): float(out.start_logits[0, i] + out.end_logits[0, j]) for i in inside for j in inside if i <= j}
    (first, last), best = max(spans.items(), key=lambda one: one[1])
    assert shown.answers[0].label == context[offsets[first][0] : offsets[last][1]] == shown.generated
    assert shown.answers[0].logit == pytest.approx(best, abs=TOLERANCE)


def test_files_and_names_are_upstreams(tmp_path: Path) -> None:
    theirs, ours = pair("xlnet", "LMHeadModel")
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    a, b = (load_file(tmp_path / who / "model.safetensors") for who in ("ours", "theirs"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    again = transformers.XLNetLMHeadModel.from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(again(IDS).logits, theirs(IDS).logits)
    layer = ours.transformer.layer[1]
    assert layer.rel_attn.q.shape == (32, 4, 8) and layer.rel_attn.layer_norm is layer.attn_norm
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda module, args, out: seen.append(out))
    ours(IDS)
    assert len(seen) == 1


def test_a_fresh_model_begins_as_upstreams() -> None:
    fields = {"vocab_size": 50, "d_model": 64, "n_layer": 1, "n_head": 4, "d_inner": 48, "initializer_range": 0.3}
    torch.manual_seed(0)
    theirs = transformers.XLNetModel(transformers.XLNetConfig(**fields))
    ours = cutaway.XLNetModel(cutaway.XLNetConfig(**fields))
    begun = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        spread, wanted = (float(x.detach().std(correction=0)) for x in (p, begun[name]))
        if wanted == 0.0:
            assert torch.equal(p, begun[name]), name
        else:  # of n numbers the spread is known to one part in the root of 2n
            assert max(abs(spread - 0.3), abs(wanted - 0.3)) < 5 * 0.3 / (2 * p.numel()) ** 0.5, name
    again = load(theirs.eval(), "Model").train()
    assert not torch.equal(again(IDS % 50).last_hidden_state, again(IDS % 50).last_hidden_state)  # dropout
