"""Speculative decoding: the greedy text is the same, the sampled one has the same distribution, in fewer passes."""

import itertools

import pytest
import torch

from cutaway import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
    T5Config,
    T5ForConditionalGeneration,
)
from cutaway.errors import GenerationError
from cutaway.models.decode_step import DecodeStepper

LLAMA = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.4, "eos_token_id": None,
    "bos_token_id": None,
}  # fmt: skip


SIDE = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}


def made(seed=0, config=LlamaConfig, **fields):
    torch.manual_seed(seed)
    if config is GPT2Config:
        chosen = config(vocab_size=40, n_embd=32, n_layer=1, n_head=2, n_positions=128, initializer_range=0.4)
    else:
        chosen = config(**{**LLAMA, **fields})
    return AutoModelForCausalLM.from_config(chosen).eval()


@pytest.fixture(scope="module")
def large():
    return made()


def like(model, noise):
    """A model of which the answers are often the same."""
    small = AutoModelForCausalLM.from_config(model.config).eval()
    small.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        for p in small.parameters():
            p.add_(torch.randn_like(p) * noise * p.std().nan_to_num(1.0))
    return small


@pytest.mark.parametrize("n_ahead", [1, 3, 8])
@pytest.mark.parametrize("config", [LlamaConfig, Qwen3Config, GPT2Config])
def test_the_greedy_text_is_the_same(large, config, n_ahead):
    model = large if config is LlamaConfig else made(config=config)
    for seed, small in enumerate((made(3), like(model, 0.05), like(model, 0.3))):
        torch.manual_seed(seed)
        ids = torch.randint(40, (1, 7))
        settings = {"max_new_tokens": 40} | (
            {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3} if seed == 1 else {}
        )
        out = model.generate(
            ids, assistant_model=small, num_assistant_tokens=n_ahead, return_dict_in_generate=True, **settings
        )
        plain = model.generate(ids, **settings)
        assert torch.equal(out.sequences, plain)
        assert out.past_key_values.lengths.tolist() == [46]  # what was guessed in vain is forgotten
        for end in (plain[0, 20], plain[0, 8]):
            ended = {**settings, "eos_token_id": int(end)}
            assert torch.equal(model.generate(ids, assistant_model=small, **ended), model.generate(ids, **ended))


@pytest.mark.parametrize("config", [T5Config, BartConfig])
def test_an_encoder_decoder_reads_its_source_by_itself(config):
    def build(seed):
        torch.manual_seed(seed)
        fields = {"vocab_size": 40, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
        if config is T5Config:
            fields |= {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2, "initializer_factor": 8.0}
        else:
            fields |= {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in SIDE.items()}
            fields |= {"d_model": 16, "init_std": 0.4, "forced_eos_token_id": None, "bos_token_id": None}
        return AutoModelForSeq2SeqLM.from_config(config(**fields)).eval()

    model, ids = build(0), torch.randint(5, 40, (1, 7), generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    near = build(1)
    near.load_state_dict(
        {name: p + 0.05 * torch.randn_like(p) * p.std().nan_to_num(1.0) for name, p in model.state_dict().items()}
    )
    for small in (build(2), near):
        for asked in ({}, {"attention_mask": mask}, {"repetition_penalty": 1.3}):
            plain = model.generate(ids, max_new_tokens=25, **asked)
            assert torch.equal(model.generate(ids, max_new_tokens=25, assistant_model=small, **asked), plain)
    model.generate(ids, max_new_tokens=9, do_sample=True, seed=1, assistant_model=near)
    outputs = model.encode(ids)
    with pytest.raises(GenerationError, match="needs input_ids"):
        model.generate(encoder_outputs=outputs, max_new_tokens=4, assistant_model=near)


@pytest.mark.parametrize("do_sample", [False, True])
def test_what_each_step_sees_is_that_of_plain_steps(large, do_sample):
    small, ids = like(large, 0.1), torch.randint(1, 40, (1, 6))
    asked = {
        "output_attentions": True, "output_hidden_states": True, "output_scores": True, "return_dict_in_generate": True,
        "max_new_tokens": 5, "do_sample": do_sample, "seed": 3 if do_sample else None,
    }  # fmt: skip
    out, plain = large.generate(ids, assistant_model=small, **asked), large.generate(ids, **asked)
    assert torch.equal(out.sequences, plain.sequences)
    for name in ("attentions", "hidden_states"):
        assert [[x.shape for x in step] for step in out[name]] == [[x.shape for x in step] for step in plain[name]]
        assert all(
            torch.equal(a, b) for x, y in zip(out[name], plain[name], strict=True) for a, b in zip(x, y, strict=True)
        )


def test_left_padding_and_a_small_models_own_positions(large):
    small = like(large, 0.1)
    ids = torch.randint(1, 40, (1, 6))
    padded, mask = torch.cat((torch.zeros(1, 3, dtype=ids.dtype), ids), 1), torch.tensor([[0] * 3 + [1] * 6])
    out = large.generate(padded, attention_mask=mask, assistant_model=small, max_new_tokens=12)
    assert torch.equal(out[:, 3:], large.generate(ids, max_new_tokens=12))


def test_a_good_assistant_spares_passes(large, monkeypatch):
    passes = []
    call = DecodeStepper.__call__

    def counted(self, ids, *more):
        passes.append((id(self), ids.shape[1]))
        return call(self, ids, *more)

    monkeypatch.setattr(DecodeStepper, "__call__", counted)
    ids = torch.randint(1, 40, (1, 6))
    large.generate(
        ids,
        assistant_model=like(large, 0.0),
        max_new_tokens=60,
        num_assistant_tokens=5,
        assistant_confidence_threshold=0,
    )
    checks = [n for _, n in passes if n > 2]
    assert len(checks) <= 11
    assert set(checks) <= {4, 5, 6}


def exact(model, ids, n, **warp):
    """The probabilities of each of the texts of n tokens that sampling may write after `ids`: {tokens: p}."""
    found = {(): 1.0}
    for _ in range(n):
        grown = {}
        for text, p in found.items():
            row = torch.cat((ids[0], torch.tensor(text, dtype=ids.dtype)))[None]
            logits = model(input_ids=row).logits[:, -1].detach() / warp.get("temperature", 1.0)
            if "top_k" in warp:
                logits[logits < logits.topk(warp["top_k"]).values[:, -1:]] = -torch.inf
            for token, q in enumerate(logits.softmax(-1)[0].tolist()):
                if q:
                    grown[(*text, token)] = p * q
        found = grown
    return found


@pytest.mark.parametrize("warp", [{"top_k": 0}, {"temperature": 0.7, "top_k": 3}])
@pytest.mark.parametrize("noise", [0.2, 2.0])
def test_a_sampled_text_has_the_distribution_of_the_model(warp, noise):
    """A chi-squared test over all texts of three tokens, with the pooled rare ones; false once in 10^5."""
    model = made(vocab_size=4, initializer_range=0.15)
    small = like(model, noise)
    ids = torch.tensor([[1, 2, 3]])
    wanted = exact(model, ids, 3, **{k: v for k, v in warp.items() if v})
    draws = 600
    counts = dict.fromkeys(wanted, 0)
    torch.manual_seed(7)
    for _ in range(draws):
        out = model.generate(
            ids, do_sample=True, assistant_model=small, num_assistant_tokens=2, max_new_tokens=3, **warp
        )
        counts[tuple(out[0, 3:].tolist())] += 1
    often = {text for text, p in wanted.items() if p * draws >= 5}
    cells = [(counts[text], wanted[text] * draws) for text in often]
    rare = (sum(counts[t] for t in wanted.keys() - often), sum(wanted[t] for t in wanted.keys() - often) * draws)
    cells += [rare] if rare[1] >= 5 else []
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    degrees = len(cells) - 1
    # Wilson and Hilferty (1931): the cube root of chi-squared / n is nearly normal
    z = ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / (2 / (9 * degrees)) ** 0.5
    assert z < 4.3
    assert len(often) > 8


def test_one_seed_gives_one_text(large):
    small, ids = like(large, 0.2), torch.randint(1, 40, (1, 6))
    texts = [
        large.generate(ids, do_sample=True, seed=5, assistant_model=small, max_new_tokens=20).tolist() for _ in range(2)
    ]
    assert texts[0] == texts[1]


def test_what_does_not_fit_is_refused(large):
    small, ids = like(large, 0.1), torch.randint(1, 40, (1, 6))
    wrong = [
        ({"assistant_model": made(vocab_size=41)}, "41 tokens"),
        ({"assistant_model": "gpt2"}, "str"),
        ({"num_beams": 2}, "num_beams=2"),
        ({"num_return_sequences": 2, "do_sample": True}, "num_return_sequences=2"),
        ({"use_cache": False}, "use_cache"),
        ({"num_assistant_tokens": 0}, "num_assistant_tokens"),
        ({"assistant_confidence_threshold": 2}, "assistant_confidence_threshold"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens=3 and assistant_model"),
    ]
    for settings, word in wrong:
        with pytest.raises(GenerationError, match=word):
            large.generate(ids, **{"assistant_model": small, "max_new_tokens": 3, **settings})
    with pytest.raises(GenerationError, match="2 prompts"):
        large.generate(torch.cat((ids, ids)), assistant_model=small)
    seq2seq = T5ForConditionalGeneration(
        T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    )
    for pair in itertools.permutations((large, seq2seq)):
        with pytest.raises(GenerationError, match="assistant_model"):
            pair[0].generate(ids, assistant_model=pair[1], max_new_tokens=2)


def test_a_lookup_that_the_models_files_wish_gives_way(large):
    small, ids = like(large, 0.1), torch.randint(1, 40, (1, 6))
    plain = large.generate(ids, max_new_tokens=5, do_sample=False)
    large.generation_config.prompt_lookup_num_tokens = 3
    try:
        assert torch.equal(large.generate(ids, max_new_tokens=5, do_sample=False, assistant_model=small), plain)
    finally:
        large.generation_config.prompt_lookup_num_tokens = None
