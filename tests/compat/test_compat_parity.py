"""Objects under upstream's names give upstream's numbers: processors, criteria, schedules, Adafactor, collators."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import tiny
import torch
import transformers
from transformers import optimization as upstream
from transformers.generation import logits_process, stopping_criteria

import cutaway
from cutaway.errors import ConfigError, GenerationError, InputError
from cutaway.generate import stopping_criteria as criteria
from cutaway.train import schedule

IDS = torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(0))
SCORES = 2 * torch.randn(3, 200, generator=torch.Generator().manual_seed(1))
SOURCE = torch.randint(0, 40, (3, 6), generator=torch.Generator().manual_seed(2))
PROCESSORS: list[tuple[str, tuple[Any, ...]]] = [
    ("TemperatureLogitsWarper", (0.7,)),
    ("TopKLogitsWarper", (5,)),
    ("TopKLogitsWarper", (2, -9.0, 4)),
    ("TopPLogitsWarper", (0.6,)),
    ("TopPLogitsWarper", (0.01, -9.0, 3)),
    ("MinPLogitsWarper", (0.2,)),
    ("MinPLogitsWarper", (0.9, -5.0, 4)),
    ("TypicalLogitsWarper", (0.5,)),
    ("TypicalLogitsWarper", (0.01, -3.0, 5)),
    ("EpsilonLogitsWarper", (0.01,)),
    ("EpsilonLogitsWarper", (0.5, -1.0, 3)),
    ("EtaLogitsWarper", (0.02,)),
    ("TopHLogitsWarper", (0.4,)),
    ("RepetitionPenaltyLogitsProcessor", (1.3,)),
    ("RepetitionPenaltyLogitsProcessor", (1.3, 4)),
    ("RepetitionPenaltyLogitsProcessor", (1.3, torch.tensor([1, 3, 5]))),
    ("EncoderRepetitionPenaltyLogitsProcessor", (1.4, SOURCE)),
    ("NoRepeatNGramLogitsProcessor", (1,)),
    ("NoRepeatNGramLogitsProcessor", (2,)),
    ("EncoderNoRepeatNGramLogitsProcessor", (1, SOURCE)),
    ("SequenceBiasLogitsProcessor", ({(3,): 1.5, (int(IDS[0, -1]), 7): -2.0},)),
    ("SequenceBiasLogitsProcessor", ([[[3], 1.5], [[int(IDS[0, -1]), 7], -2.0]],)),
    ("NoBadWordsLogitsProcessor", ([[4], [int(IDS[1, -1]), 9], [2]], 2)),
    ("PrefixConstrainedLogitsProcessor", (lambda row, ids: [1, 2, row + 5], 1)),
    ("MinLengthLogitsProcessor", (12, 3)),
    ("MinLengthLogitsProcessor", (2, 3)),
    ("MinNewTokensLengthLogitsProcessor", (8, 3, [1, 2])),
    ("ForcedBOSTokenLogitsProcessor", (3,)),
    ("ForcedEOSTokenLogitsProcessor", (10, 3)),
    ("InfNanRemoveLogitsProcessor", ()),
    ("ExponentialDecayLengthPenalty", ((2, 1.1), 3, 4)),
    ("LogitNormalization", ()),
    ("SuppressTokensLogitsProcessor", ([1, 2],)),
    ("SuppressTokensAtBeginLogitsProcessor", ([1, 2], 9)),
]


@pytest.mark.parametrize(("name", "arguments"), PROCESSORS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(PROCESSORS)])
def test_processors(name: str, arguments: tuple[Any, ...]) -> None:
    mine, theirs = getattr(cutaway, name)(*arguments), getattr(logits_process, name)(*arguments)
    before = SCORES.clone()
    for ids in (IDS, IDS[:, :1]):
        assert torch.allclose(mine(ids, SCORES), theirs(ids, SCORES.clone()), atol=1e-6)
    assert torch.equal(SCORES, before)  # what is given is not changed


def test_every_processor_of_upstream_is_here() -> None:
    names = {n for n, c in vars(logits_process).items() if isinstance(c, type) and c.__module__ == c.__module__}
    names = {n for n in names if n.endswith(("Processor", "Warper")) and n in transformers._class_to_module}
    audio = {"AlternatingCodebooksLogitsProcessor", "WhisperTimeStampLogitsProcessor"}
    assert names - audio <= set(cutaway.__all__)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("TopKLogitsWarper", (0,)), ("TopPLogitsWarper", (1.5,)), ("TemperatureLogitsWarper", (0,)),
     ("RepetitionPenaltyLogitsProcessor", (-1.0,)), ("MinLengthLogitsProcessor", (2, -3)),
     ("SequenceBiasLogitsProcessor", ({},)), ("NoBadWordsLogitsProcessor", ([3],)),
     ("ClassifierFreeGuidanceLogitsProcessor", (1.0,))],
)  # fmt: skip
def test_processors_refuse(name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(GenerationError):
        getattr(cutaway, name)(*arguments)


def test_lists_of_them_in_generate(tmp_path: Any) -> None:
    folder = tiny.decoder(tmp_path)
    mine, theirs = (m.AutoModelForCausalLM.from_pretrained(folder).eval() for m in (cutaway, transformers))
    prompt = torch.tensor([[5, 6, 7, 8]])
    found = []
    for model, names in ((mine, cutaway), (theirs, transformers)):
        rules = names.LogitsProcessorList([names.RepetitionPenaltyLogitsProcessor(1.5), names.TopKLogitsWarper(3),
                                           names.MinNewTokensLengthLogitsProcessor(4, 5, 2)])  # fmt: skip
        stops = names.StoppingCriteriaList([names.MaxLengthCriteria(9)])
        found.append(model.generate(prompt, logits_processor=rules, stopping_criteria=stops, max_new_tokens=12,
                                    do_sample=False, pad_token_id=0))  # fmt: skip
    assert found[0].tolist() == found[1].tolist()
    guided = cutaway.UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, mine, torch.tensor([[9, 4]]))
    other = transformers.UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, theirs, torch.tensor([[9, 4]]))
    scores = torch.randn(1, mine.config.vocab_size)
    for ids in (prompt, torch.cat((prompt, torch.tensor([[3]])), 1)):
        assert torch.allclose(guided(ids, scores), other(ids, scores.clone()), atol=1e-4)


def test_transition_scores(tmp_path: Any) -> None:
    folder = tiny.decoder(tmp_path)
    mine, theirs = (m.AutoModelForCausalLM.from_pretrained(folder).eval() for m in (cutaway, transformers))
    prompt = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    for beams in (1, 3):
        how = {"max_new_tokens": 5, "do_sample": False, "num_beams": beams, "pad_token_id": 0, "output_scores": True,
               "return_dict_in_generate": True}  # fmt: skip
        out = mine.generate(prompt, **how)
        indices = out.get("beam_indices")
        for normalize in (False, True):
            got = mine.compute_transition_scores(out.sequences, out.scores, indices, normalize)
            want = theirs.compute_transition_scores(out.sequences, out.scores, indices, normalize)
            assert torch.allclose(got, want, atol=1e-5)


def test_criteria() -> None:
    newest = int(IDS[1, -1])
    cases = (("MaxLengthCriteria", (9,)), ("MaxLengthCriteria", (10,)), ("EosTokenCriteria", (newest,)),
             ("MaxTimeCriteria", (0.0, 1.0)), ("MaxTimeCriteria", (1e9,)))  # fmt: skip
    for name, arguments in cases:
        mine, theirs = getattr(cutaway, name)(*arguments), getattr(stopping_criteria, name)(*arguments)
        assert mine(IDS, SCORES).tolist() == theirs(IDS, SCORES).tolist()
    several = cutaway.StoppingCriteriaList([cutaway.MaxLengthCriteria(30), cutaway.EosTokenCriteria([int(IDS[0, -1])])])
    assert several(IDS, None).tolist()[0] is True and several.max_length == 30
    assert criteria.validate_stopping_criteria(cutaway.StoppingCriteriaList(), 5).max_length == 5
    tokenizer = tiny.wordpiece()
    for text in ("a good film", "a great cast", "good good"):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        ended = [
            bool(cutaway.StopStringCriteria(tokenizer, "good")(ids[:, : n + 1], None)) for n in range(ids.shape[1])
        ]
        words = [tokenizer.decode(ids[0, : n + 1]) for n in range(ids.shape[1])]
        assert ended == [word.endswith("good") for word in words]


SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}), ("cosine", {}), ("cosine", {"num_cycles": 2.0}), ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {"power": 2.0, "lr_end": 1e-3}), ("constant", {}), ("constant_with_warmup", {}),
    ("inverse_sqrt", {}), ("inverse_sqrt", {"timescale": 7}), ("cosine_with_min_lr", {"min_lr": 0.01}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1}), ("warmup_stable_decay", {"num_decay_steps": 4}),
    ("warmup_stable_decay", {"num_decay_steps": 9, "decay_type": "1-sqrt", "warmup_type": "cosine"}),
    ("warmup_stable_decay", {"num_decay_steps": 4, "min_lr_ratio": 0.1}),
]  # fmt: skip


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)


@pytest.mark.parametrize(("name", "more"), SCHEDULES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(SCHEDULES)])
def test_schedules(name: str, more: dict[str, Any]) -> None:
    for warm in (0, 3):
        mine, theirs = optimizer(), optimizer()
        a = cutaway.get_scheduler(name, mine, warm, 20, more)
        b = upstream.get_scheduler(name, theirs, warm, 20, more)
        assert pickle.loads(pickle.dumps(a.lr_lambdas))[0](5) == a.lr_lambdas[0](5)
        for _ in range(25):
            assert a.get_last_lr() == pytest.approx(b.get_last_lr(), abs=1e-12)
            for one in (mine, theirs, a, b):
                one.step()


def test_every_schedule_of_upstream_but_the_greedy_one() -> None:
    theirs = {kind.value for kind in transformers.SchedulerType}
    assert theirs - {kind.value for kind in cutaway.SchedulerType} == {"greedy"}
    assert {kind.value for kind in schedule._MAKERS} == {kind.value for kind in cutaway.SchedulerType}
    plateau = cutaway.get_scheduler("reduce_lr_on_plateau", optimizer(), scheduler_specific_kwargs={"patience": 0})
    for loss in (1.0, 2.0, 3.0):
        plateau.step(loss)
    assert plateau.get_last_lr()[0] < 0.1


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [("linaer", {}, "linear"), ("linear", {}, "num_warmup_steps"), ("linear", {"num_warmup_steps": 1}, "num_training"),
     ("cosine_with_min_lr", {"num_warmup_steps": 1, "num_training_steps": 2}, "min_lr"),
     ("cosine", {"num_warmup_steps": 1, "num_training_steps": 2, "scheduler_specific_kwargs": {"nmu": 1}}, "nmu")],
)  # fmt: skip
def test_schedules_refuse(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cutaway.get_scheduler(name, optimizer(), **given)


@pytest.mark.parametrize(
    "settings",
    [{}, {"lr": 0.01, "relative_step": False, "scale_parameter": False},
     {"beta1": 0.9, "weight_decay": 0.1, "warmup_init": True}],
)  # fmt: skip
def test_adafactor(settings: dict[str, Any]) -> None:
    first = torch.randn(4, 3), torch.randn(5)
    mine, theirs = ([torch.nn.Parameter(x.clone()) for x in first] for _ in range(2))
    a, b = cutaway.Adafactor(mine, **settings), upstream.Adafactor(theirs, **settings)
    for _ in range(5):
        for (p, q), one in ((mine, a), (theirs, b)):
            one.zero_grad()
            ((p**3).sum() + q.sin().sum()).backward()
            one.step()
        assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(mine, theirs, strict=True))
    for wrong in ({"lr": 0.1}, {"relative_step": False}, {"lr": 0.1, "relative_step": False, "warmup_init": True}):
        with pytest.raises(ConfigError):
            cutaway.Adafactor(mine, **wrong)


def test_permutations() -> None:
    tokenizer = tiny.wordpiece()
    rows = [{"input_ids": (tokenizer(t)["input_ids"] + [0] * 12)[:12]} for t in ("a good film and a bad one", "the eu")]
    for seed in range(4):
        found = []
        for names in (cutaway, transformers):
            torch.manual_seed(seed)
            found.append(names.DataCollatorForPermutationLanguageModeling(tokenizer)([dict(r) for r in rows]))
        assert all(torch.equal(found[0][k], found[1][k]) for k in found[1])
    with pytest.raises(InputError, match="even number"):
        cutaway.DataCollatorForPermutationLanguageModeling(tokenizer)([{"input_ids": [5, 6, 7]}])


def test_choices_and_numpy() -> None:
    tokenizer = tiny.wordpiece()
    rows = [{**tokenizer(["a good film", "a"]), "label": 1}, {**tokenizer(["the eu", "bad one is"]), "label": 0}]
    mine = cutaway.DataCollatorForMultipleChoice(tokenizer)([dict(r) for r in rows])
    theirs = transformers.DataCollatorForMultipleChoice(tokenizer)([dict(r) for r in rows])
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in theirs)
    with pytest.raises(InputError, match="choices"):
        cutaway.DataCollatorForMultipleChoice(tokenizer)([rows[0], {**tokenizer(["a"]), "label": 0}])
    tokens = [{**tokenizer("a good film"), "labels": [0, 1, 2, 3, 4]}, {**tokenizer("a"), "labels": [0, 1, 2]}]
    texts = [{"input_ids": [5, 6], "labels": [7]}, {"input_ids": [5], "labels": [7, 8]}]
    for name, data in (("DataCollatorForTokenClassification", tokens), ("DataCollatorForSeq2Seq", texts)):
        mine = getattr(cutaway, name)(tokenizer, return_tensors="np")([dict(r) for r in data])
        theirs = getattr(transformers, name)(tokenizer, return_tensors="np")([dict(r) for r in data])
        assert all((mine[k] == theirs[k]).all() and type(mine[k]).__name__ == "ndarray" for k in theirs), name
    plain = [{"a": [1, 2], "label": 1}, {"a": [3, 4], "label": 0}]
    assert cutaway.DefaultDataCollator("np")(plain)["a"].tolist() == [[1, 2], [3, 4]]
    whole = cutaway.DataCollatorForWholeWordMask(tokenizer)
    assert whole.whole_word_mask and (whole([tokenizer("a good film")])["labels"] != 0).any()


def test_rotations_by_their_formula() -> None:
    import transformers.models.llama.modeling_llama as theirs

    from cutaway.models.llama import modeling_llama as ours

    torch.manual_seed(0)
    q, k, angles = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 5, 8)
    given = (q, k, angles.cos(), angles.sin())
    for mine, yours in zip(ours.apply_rotary_pos_emb(*given), theirs.apply_rotary_pos_emb(*given), strict=True):
        assert torch.allclose(mine, yours)
    assert torch.equal(ours.rotate_half(q), theirs.rotate_half(q))
    assert torch.equal(ours.repeat_kv(k, 2), theirs.repeat_kv(k, 2))


def test_names_that_public_files_import() -> None:
    import cutaway
    from cutaway.errors import CutawayError
    from cutaway.integrations import WandbCallback
    from cutaway.modeling_outputs import CausalLMOutputWithCrossAttentions
    from cutaway.modeling_utils import ALL_ATTENTION_FUNCTIONS, is_fsdp_enabled
    from cutaway.trainer_pt_utils import LabelSmoother
    from cutaway.utils import is_flash_attn_greater_or_equal_2_10, is_torch_accelerator_available
    from cutaway.utils.dummy_pt_objects import PreTrainedModel

    assert PreTrainedModel is cutaway.PreTrainedModel
    crossed = CausalLMOutputWithCrossAttentions(logits=torch.ones(1), cross_attentions=(torch.ones(2),))
    assert list(crossed) == ["logits", "cross_attentions"]
    assert LabelSmoother.ignore_index == -100
    assert not is_fsdp_enabled()
    assert not is_flash_attn_greater_or_equal_2_10()
    assert is_torch_accelerator_available() == torch.accelerator.is_available()
    with pytest.raises(CutawayError, match="report_to"):
        WandbCallback()
    with pytest.raises(CutawayError, match="one engine"):
        ALL_ATTENTION_FUNCTIONS["sdpa"]
    with pytest.raises(CutawayError, match=r"torch\.optim\.AdamW"):
        cutaway.AdamW([])


def test_decorators_of_other_peoples_models():
    import transformers.utils as theirs

    import cutaway.utils as mine

    for library, kind in ((mine, cutaway), (theirs, transformers)):

        class Model(torch.nn.Module):
            def __init__(self, config):
                super().__init__()
                if config is not None:
                    self.config = config

            @library.can_return_tuple
            def forward(self, x):
                return kind.modeling_outputs.BaseModelOutput(last_hidden_state=x)  # noqa: B023

        for said in (True, False, None):
            for asked in (True, False, None):
                config = kind.PreTrainedConfig()
                config.return_dict = said
                made = Model(config)(torch.ones(1), return_dict=asked)
                assert isinstance(made, tuple) == (not (said if asked is None else asked)), (said, asked)
        assert not isinstance(Model(None)(torch.ones(1)), tuple)

        @library.filter_out_non_signature_kwargs(extra=["more"])
        def named(a, **kwargs):
            return a, kwargs

        assert named(1, more=2) == (1, {"more": 2})
        with pytest.warns(UserWarning, match="other"):
            assert named(1, more=2, other=3) == (1, {"more": 2})
