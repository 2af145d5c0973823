"""A model is its published names: parameters, modules, state, hooks, optimizers and other libraries' adapters."""

from __future__ import annotations

import copy
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from parity.pairs import TOLERANCE, gap, inputs, load, pair, texts
from parity.tiny_models import ALL_EXPERTS, CONFIGS, ENCODER_DECODERS, EVERY_HEAD, HEADS, decoder_fields, make
from safetensors.torch import load_file
from torch import Tensor, nn

import cutaway
from cutaway.errors import ConfigError
from cutaway.nn.published_layer import PublishedLayer
from cutaway.train.optimizer import make_optimizer

# families whose tables list a norm, or queries and keys, elsewhere than upstream's modules do
OTHER_ORDER = ("gemma2", "gemma3_text", "phi", "gptj", "gpt_neo", "falcon")
# positions and distances, which upstream has once for all texts; norms of single heads, of which it has the heads first
OTHER_SHAPE = r"position|wpe|pos_\w+_proj|encoder\.LayerNorm|q_norm|k_norm|\.norms\.\d"
FLAT = ("opt", "opt-narrow")  # whose feed-forward layer reads all texts as one row
FUSED = ("gpt2", "modernbert", "phi3", "gpt_neox")
LM = {
    "deberta-v2-conv": "ForMaskedLM",
    "bert": "ForMaskedLM",
    "distilbert": "ForMaskedLM",
    "gpt2": "LMHeadModel",
    "t5": "ForConditionalGeneration",
}


def head(family: str) -> str:
    """A class with logits for every token."""
    ends = ("LMHeadModel", "ForMaskedLM", "ForCausalLM", "ForConditionalGeneration", "MTModel")
    return LM.get(family) or next(end for end in HEADS[family] if end in ends)


def batch(family: str, lengths: tuple[int, ...] = (7, 7)) -> dict[str, Tensor]:
    given = inputs(family, lengths)
    return {**given, "labels": given["decoder_input_ids" if "decoder_input_ids" in given else "input_ids"].clone()}


def in_a_file(theirs: Any) -> dict[str, Tensor]:
    """What upstream saves: the published tensors, a tied one under one of its names."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors")


def published(theirs: Any, ours: Any) -> dict[str, Tensor] | None:
    """The tensors of upstream's file, where its class holds them under names of its own; None where ours has these."""
    if ours.state_dict().keys() == theirs.state_dict().keys():
        return None
    stored = in_a_file(theirs)
    assert not stored.keys() <= theirs.state_dict().keys()
    return stored


def shapes(named: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in named}


@pytest.mark.parametrize(("family", "ending"), [*((f, "Model") for f in CONFIGS), *EVERY_HEAD])
def test_names_and_shapes_are_upstreams(family: str, ending: str) -> None:
    theirs = make(family, ending, **decoder_fields(family, ending))
    ours = load(theirs, ending)
    stored = published(theirs, ours)
    if stored is not None:
        state = ours.state_dict()
        assert shapes(stored.items()).items() <= shapes(state.items()).items()
        assert all(torch.equal(state[name], value) for name, value in stored.items())
        holders = {id(p) for name, p in ours.named_parameters() if name in stored}
        assert all(id(p) in holders for p in ours.parameters())  # and nothing that no file has
        assert state.keys() - stored.keys() <= dict(ours.named_parameters(remove_duplicate=False)).keys()
        return
    assert shapes(ours.named_parameters()) == shapes(theirs.named_parameters())
    assert shapes(ours.state_dict().items()) == shapes(theirs.state_dict().items())
    if ending == "Model" and family not in OTHER_ORDER:  # and so an optimizer's state has one order
        assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
        is_buffer = name in dict(theirs.named_buffers())
        assert (ours.get_buffer(name) if is_buffer else ours.get_parameter(name)) is not None
        assert isinstance(ours.get_submodule(name.rpartition(".")[0]), nn.Module)
    for kind in ("weight", "bias"):  # a module's own tensors are the ones that are listed
        for name, p in ours.named_parameters():
            if name.endswith("." + kind):
                assert getattr(ours.get_submodule(name.rpartition(".")[0]), kind) is p, name


@pytest.mark.parametrize("family", CONFIGS)
def test_a_saved_state_is_read_strictly_both_ways(family: str) -> None:
    ending = head(family)
    theirs = make(family, ending)
    ours = load(make(family, ending, seed=1), ending)
    stored = published(theirs, ours)
    others = [(theirs, ours), (ours, make(family, ending, seed=2))]
    if stored is not None:  # upstream's class knows the file's names in `from_pretrained` alone
        with pytest.raises(RuntimeError, match=r"(?s)Missing.*Unexpected"):
            ours.load_state_dict(theirs.state_dict())
        ours.load_state_dict(with_tied(stored, ours))
        assert all(torch.equal(ours.state_dict()[name], value) for name, value in stored.items())
        others = [(ours, load(make(family, ending, seed=2), ending))]
    for one, other in others:
        file = io.BytesIO()
        torch.save(one.state_dict(), file)
        file.seek(0)
        assert str(other.load_state_dict(torch.load(file))) == "<All keys matched successfully>"
        assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())
    around = nn.ModuleDict({"inside": ours})  # and through a module of one's own
    again = nn.ModuleDict({"inside": load(make(family, ending, seed=3), ending)})
    again.load_state_dict(around.state_dict())
    assert all(torch.equal(value, around.state_dict()[name]) for name, value in again.state_dict().items())


def test_what_does_not_fit_is_said_under_published_names() -> None:
    ours = load(make("gpt2"), "Model")
    state = ours.state_dict()
    state["h.0.attn.c_attn.weight"] = torch.zeros(3, 3)
    with pytest.raises(RuntimeError, match=r"size mismatch for h\.0\.attn\.c_attn\.weight"):
        ours.load_state_dict(state)
    del state["h.0.attn.c_attn.weight"]
    state["strange"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"(?s)Missing.*'h\.0\.attn\.c_attn\.weight'.*Unexpected.*'strange'"):
        ours.load_state_dict(state)
    report = ours.load_state_dict(state, strict=False)
    assert report.missing_keys == ["h.0.attn.c_attn.weight"] and report.unexpected_keys == ["strange"]


@pytest.mark.parametrize("family", FUSED)
def test_the_engines_layers_are_views_and_their_names_still_load(family: str) -> None:
    ours = load(make(family), "Model")
    ids = inputs(family, (6, 4))
    before = ours(**ids).last_hidden_state
    attention = ours.blocks[1].attn
    by_part = {f"blocks.1.attn.{part}.weight": getattr(attention, part).weight.detach() * 2 for part in "qkv"}
    assert not ours.load_state_dict(by_part, strict=False).unexpected_keys
    changed = ours(**ids).last_hidden_state
    assert not torch.equal(before, changed)
    for part in "qkv":
        assert torch.equal(getattr(attention, part).weight, by_part[f"blocks.1.attn.{part}.weight"])
    attention.q.weight = nn.Parameter(attention.q.weight.detach() / 2)  # a weight of its own: the layer comes apart
    assert (
        not any(isinstance(m, PublishedLayer) for m in attention._modules.values() if m is not None) or family == "gpt2"
    )
    attention.k.weight = nn.Parameter(attention.k.weight.detach() / 2)
    attention.v.weight = nn.Parameter(attention.v.weight.detach() / 2)
    assert gap(ours(**ids).last_hidden_state, before) < TOLERANCE
    whole = load(make(family), "Model").state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in ours.state_dict().items())


def with_tied(stored: dict[str, Tensor], ours: nn.Module) -> dict[str, Tensor]:
    """`stored`, and each tied tensor under all of its names."""
    by_identity: dict[int, list[str]] = {}
    for name, p in ours.named_parameters(remove_duplicate=False):
        by_identity.setdefault(id(p), []).append(name)
    twins = [names for names in by_identity.values() if len(names) > 1]
    return stored | {name: stored[next(n for n in names if n in stored)] for names in twins for name in names}


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """As scripts have written them since BERT's own."""
    spared = ("bias", "LayerNorm.weight", "layer_norm", "ln_", "norm", "_ln")
    named = list(model.named_parameters())
    return [
        {"params": [p for n, p in named if not any(s in n for s in spared)], "weight_decay": 0.3},
        {"params": [p for n, p in named if any(s in n for s in spared)], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("family", CONFIGS)
def test_a_step_with_groups_by_name_is_upstreams(family: str) -> None:
    # with every expert at work: a token that changes its experts makes a step, which no gradient knows of
    theirs, ours = pair(family, head(family), **ALL_EXPERTS.get(family, {}))
    for model in (theirs, ours):
        model.eval()  # no dropout, which neither draws as the other
        optimizer = torch.optim.SGD(groups(model), lr=0.05, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            model(**batch(family)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    wanted = published(theirs, ours) or dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        assert (p - wanted[name]).abs().max() < TOLERANCE * wanted[name].abs().max().clamp(min=1), name
    assert gap(ours(**batch(family)).logits, theirs(**batch(family)).logits) < 5 * TOLERANCE  # packed anew


@pytest.mark.parametrize("family", FUSED)
def test_a_published_layer_is_trained_once(family: str) -> None:
    """Several addresses are one parameter, which an optimizer must not step for each of them."""
    ours = load(make(family, head(family)), head(family))
    made = make_optimizer(ours, cutaway.TrainingArguments("unused", use_cpu=True, report_to="none"))
    held = [id(p) for group in made.param_groups for p in group["params"]]
    assert len(held) == len(set(held)) and set(held) == {id(p) for p in ours.parameters()}


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text", "bart", "mbart", "m2m_100", "marian", "pegasus"])
def test_the_table_of_tokens_gives_what_it_gives_upstream(family: str) -> None:
    fields = {"scale_embedding": True} if family in ENCODER_DECODERS else {}
    theirs, ours = pair(family, **fields)
    ids = inputs(family, (5,))["input_ids"]
    found, wanted = (model.get_input_embeddings()(ids) for model in (ours, theirs))
    assert gap(found, wanted) < TOLERANCE
    ours.resize_token_embeddings(120)
    assert gap(ours.get_input_embeddings()(ids), wanted) < TOLERANCE
    if family not in ENCODER_DECODERS:
        assert gap(ours(inputs_embeds=found).last_hidden_state, theirs(input_ids=ids).last_hidden_state) < TOLERANCE


@pytest.mark.parametrize("way", [{"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("family", FUSED)
def test_an_optimizers_step_is_seen_by_the_next_pass(family: str, way: dict[str, bool]) -> None:
    ours = load(make(family, head(family)), head(family))
    optimizer = torch.optim.AdamW(groups(ours), lr=0.05, **way)
    with torch.no_grad():
        before = ours(**batch(family)).logits
    ours(**batch(family)).loss.backward()
    optimizer.step()
    with torch.no_grad():
        after = ours(**batch(family)).logits
        assert not torch.equal(before, after)
        assert torch.equal(after, copy.deepcopy(ours)(**batch(family)).logits)


@pytest.mark.parametrize("family", ["bert", *FUSED])
def test_freezing_by_published_names_freezes(family: str) -> None:
    theirs, ours = pair(family, head(family))
    ours.train()
    prefix = next(n for n, _ in theirs.named_parameters() if ".0." in n).partition(".0.")[0] + ".0."
    for model in (theirs, ours):
        for name, p in model.named_parameters():
            p.requires_grad = not name.startswith(prefix)
    ours(**batch(family)).loss.backward()
    trained = {name for name, p in ours.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in theirs.named_parameters() if p.requires_grad}


def test_addresses_freeze_a_part_of_a_published_layer() -> None:
    from cutaway.train.parameter_groups import ParameterAddresses

    ours = load(make("gpt2", "LMHeadModel"), "LMHeadModel")
    ParameterAddresses(ours).freeze(["blocks.1"])  # all of it: the published parameters are frozen
    assert not ours.transformer.h[1].attn.c_attn.weight.requires_grad
    ParameterAddresses(ours).freeze(["blocks.0.attn.q"])  # a part: the layer comes apart
    ours(**batch("gpt2")).loss.backward()
    attention = ours.base.blocks[0].attn
    assert attention.q.weight.grad is None and attention.k.weight.grad is not None
    assert ours.state_dict().keys() == make("gpt2", "LMHeadModel").state_dict().keys()


@pytest.mark.parametrize("family", CONFIGS)
def test_hooks_on_layers_see_what_they_see_upstream(family: str) -> None:
    theirs, ours = pair(family)
    seen: dict[str, dict[str, Tensor]] = {"theirs": {}, "ours": {}}
    refused = set()
    for who, model in (("theirs", theirs), ("ours", ours)):
        for name, module in model.named_modules():
            if not module._parameters or not name:  # XLNet's base model has one of its own
                continue

            def keep(_: nn.Module, args: Any, out: Any, name: str = name, who: str = who) -> None:
                out = out[0] if isinstance(out, tuple) else out  # a router's logits, then what follows from them
                seen[who].setdefault(name, out.clone())  # Falcon adds to its own result in place

            try:
                module.register_forward_hook(keep)
            except ConfigError:
                refused.add(name)
    given = inputs(family, (6, 4))
    with torch.no_grad():
        theirs(**given)
        ours(**given)
    assert all("relative_attention_bias" in name for name in refused)
    # a hook that is taken runs, but for those of an expert that no token goes to
    here = {name for name, module in ours.named_modules() if module._parameters}
    there = {name for name, module in theirs.named_modules() if module._parameters}
    silent = {name for name in here - refused - seen["ours"].keys() if ".experts." not in name}
    assert silent <= there - seen["theirs"].keys()  # DeBERTa's table of distances, which upstream never calls either
    # one module here; upstream may call the one that has two names by either
    twins = {"encoder.embed_tokens", "decoder.embed_tokens", "shared"} if "decoder_input_ids" in given else set()
    unlike = (here ^ there) - twins
    if unlike:
        assert published(theirs, ours) is not None
        norms = [[out for n, out in seen[who].items() if re.search("norm|_ln", n.lower())] for who in seen]
        for one, other in zip(*norms, strict=True):  # in the order of their calls
            real = given["attention_mask"].view(*one.shape[:2], *(1,) * (one.dim() - 2))
            assert gap(other * real, one * real) < TOLERANCE
    compared = 0
    for name, wanted in seen["theirs"].items():
        if name in refused | twins | unlike:
            continue
        found = seen["ours"][name]
        if name.endswith("mlp.gate") and "experts" in str(here):  # upstream's router reads all tokens as one row
            wanted = wanted.view(found.shape)
        if family == "xlnet":  # upstream's layers have the length before the batch
            wanted = wanted.transpose(0, 1)
        masks = [m for key, m in given.items() if key.endswith("attention_mask") and m.shape == wanted.shape[:2]]
        if masks and found.shape == wanted.shape:
            mask = masks[0].view(*masks[0].shape, *(1,) * (wanted.dim() - 2))
            found, wanted = found * mask, wanted * mask
        if found.shape == wanted.shape:
            assert gap(found, wanted) < TOLERANCE, name
            compared += 1
        else:
            assert re.search(OTHER_SHAPE, name) or family in FLAT, name
    assert compared > (3 if not unlike else 1)


def test_hooks_that_would_not_run_are_refused() -> None:
    bert, gpt2, bart = (load(make(family), "Model") for family in ("bert", "gpt2", "bart"))
    for module in (bert.encoder.layer[0].attention, bert.encoder, gpt2.h[0].attn, bart.encoder):
        with pytest.raises(ConfigError, match=r"model\.record"):
            module.register_forward_hook(lambda *_: None)
    seen = []
    bert.encoder.layer[1].register_forward_hook(lambda m, args, out: seen.append((args[0].shape, out.shape)))
    bert.encoder.layer[1].register_forward_pre_hook(lambda m, args: args[0] * 2)
    given = inputs("bert", (6, 4), "left")
    before = bert(**given).last_hidden_state
    assert seen == [((2, 6, 32), (2, 6, 32))]
    theirs = make("bert")
    theirs.encoder.layer[1].register_forward_pre_hook(lambda m, args: (args[0] * 2, *args[1:]))
    positions = given["attention_mask"].cumsum(1).sub(1).clamp(min=0)
    wanted = theirs(**given, position_ids=positions).last_hidden_state
    mask = given["attention_mask"][..., None]
    assert gap(before * mask, wanted * mask) < TOLERANCE


TARGETS = {
    "bert": ["query", "value"],
    "distilbert": ["q_lin", "lin1"],
    "gpt2": ["c_attn", "c_proj"],
    "llama": "all-linear",
    "t5": ["q", "v"],
    "modernbert": ["Wqkv", "Wi"],
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", TARGETS)
def test_peft_trains_and_merges_as_on_upstream(family: str) -> None:
    theirs, ours = pair(family, head(family))
    found = []
    for model in (theirs, ours):
        config = peft.LoraConfig(
            r=3,
            lora_alpha=6,
            target_modules=TARGETS[family],
            exclude_modules=["lm_head"],  # which "all-linear" leaves out of upstream's own class alone
            fan_in_fan_out=family == "gpt2",
        )
        adapted = peft.get_peft_model(model, config)
        torch.manual_seed(3)
        with torch.no_grad():
            for name, p in sorted(adapted.named_parameters()):
                if "lora_" in name:
                    p.copy_(torch.randn(p.shape) * 0.2)
        adapted.eval()
        trained = [p for p in adapted.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            adapted(**batch(family)).loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = adapted(**batch(family)).logits
            merged = adapted.merge_and_unload()
            found.append((logits, merged(**batch(family)).logits, merged))
    assert gap(found[1][0], found[0][0]) < TOLERANCE
    assert gap(found[1][1], found[0][1]) < TOLERANCE and gap(found[1][1], found[1][0]) < 5 * TOLERANCE
    assert shapes(found[1][2].state_dict().items()) == shapes(found[0][2].state_dict().items())


def test_pickled_models_keep_their_joined_layers() -> None:
    ours = load(make("gpt2"), "Model")
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    given = inputs("gpt2", (5,))
    with torch.no_grad():
        again.h[0].attn.c_attn.weight.mul_(2)
        assert not torch.equal(again(**given).last_hidden_state, ours(**given).last_hidden_state)
    assert isinstance(cutaway.GPT2Model, type) and list(again.state_dict()) == list(ours.state_dict())


def depths(model: Any) -> list[Any]:
    """The stacks of a model."""
    return [module for module in model.engine.modules() if hasattr(module, "built")]


@pytest.mark.parametrize("family", [name for name in CONFIGS if not name.startswith("albert")])
def test_lists_of_blocks_may_be_cut_and_grown(family: str, tmp_path: Path) -> None:
    """What the blocks that are left make is what they made, and each keeps what it was built with."""
    prefix = "encoder." if family in ENCODER_DECODERS else ""
    given = inputs(family, (5, 9))
    for change in (lambda blocks: blocks[:-1], lambda blocks: [*blocks, copy.deepcopy(blocks[-1])]):
        _, model = pair(family, "Model")
        stack = depths(model)[0]
        last = min(len(stack.blocks), len(change(list(stack.blocks)))) - 1
        with torch.no_grad(), model.record(f"{prefix}blocks.{last}.resid") as before:
            model(**given)
        stack.blocks = nn.ModuleList(change(list(stack.blocks)))
        with torch.no_grad(), model.record(f"{prefix}blocks.{last}.resid") as after:
            states = model(**given, output_hidden_states=True)
        assert torch.equal(*(r[f"{prefix}blocks.{last}.resid"] for r in (before, after)))
        shown = states["encoder_hidden_states" if prefix else "hidden_states"]
        assert len(shown) == len(stack.blocks) + 1
        assert model.architecture.stack.n_layers == len(stack.blocks)
        names = {name for name, _ in model.named_parameters()}
        assert names == {name for name in model.state_dict() if name in names} and len(names) == len(
            list(model.parameters())
        )


@pytest.mark.parametrize(
    ("family", "path", "field"),
    [
        ("bert", "encoder.layer", "num_hidden_layers"), ("distilbert", "transformer.layer", "n_layers"),
        ("gpt2", "h", "n_layer"), ("llama", "layers", "num_hidden_layers"), ("gpt_neox", "layers", "num_hidden_layers"),
        ("mistral", "layers", "num_hidden_layers"), ("t5", "encoder.block", "num_layers"),
        ("bart", "decoder.layers", "decoder_layers"),
    ],
)  # fmt: skip
def test_a_cut_model_is_upstreams_cut_model(family: str, path: str, field: str, tmp_path: Path) -> None:
    """The recipe for a shallower model, and what is loaded again once the config says so."""
    theirs, ours = pair(family, "Model")
    above, _, name = path.rpartition(".")
    for model in (theirs, ours):
        owner = model.get_submodule(above)
        setattr(owner, name, getattr(owner, name)[:1])
    setattr(theirs.config, field, 1)
    given = inputs(family, (7,))
    with torch.no_grad():
        assert gap(ours(**given)[0], theirs(**given)[0]) < TOLERANCE
    assert shapes(ours.state_dict().items()) == shapes(theirs.state_dict().items())
    setattr(ours.config, field, 1)
    ours.save_pretrained(tmp_path)
    again = type(ours).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**given)[0], ours(**given)[0])


@pytest.mark.parametrize(
    ("family", "path", "field"),
    [
        ("bert", "encoder.layer", "num_hidden_layers"), ("distilbert", "transformer.layer", "n_layers"),
        ("gpt2", "h", "n_layer"), ("llama", "layers", "num_hidden_layers"),
        ("bart", "encoder.layers", "encoder_layers"), ("bart", "decoder.layers", "decoder_layers"),
    ],
)  # fmt: skip
def test_a_cut_model_is_saved_with_its_depth(family: str, path: str, field: str, tmp_path: Path) -> None:
    _, model = pair(family, "Model")
    above, _, name = path.rpartition(".")
    owner = model.get_submodule(above)
    setattr(owner, name, getattr(owner, name)[:1])
    model.save_pretrained(tmp_path)
    assert getattr(model.config, field) == 1
    again = type(model).from_pretrained(tmp_path)
    given = inputs(family, (7,))
    with torch.no_grad():
        assert torch.equal(again(**given)[0], model(**given)[0])


def test_a_depth_that_one_number_does_not_say_is_left_to_the_user(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its first block, the windows of those that are left are not those of a shallower config."""
    _, model = pair("gemma2", "Model")
    n = len(model.layers)
    model.layers = model.layers[1:]
    model.save_pretrained(tmp_path)
    assert model.config.num_hidden_layers == n and "set that number" in caplog.text


def test_a_cut_decoder_writes_as_one_that_was_built_so(tmp_path: Path) -> None:
    theirs, ours = pair("llama", "ForCausalLM")
    given = {"input_ids": texts((5,))[0][None]}
    whole = ours.generate(**given, max_new_tokens=8, eos_token_id=None, pad_token_id=0)
    ours.model.layers = ours.model.layers[:2]
    found = ours.generate(**given, max_new_tokens=8, eos_token_id=None, pad_token_id=0)
    assert torch.equal(
        found, ours.generate(**given, max_new_tokens=8, eos_token_id=None, pad_token_id=0, use_cache=False)
    )
    theirs.save_pretrained(tmp_path)
    built = type(ours).from_pretrained(tmp_path, num_hidden_layers=2)
    assert torch.equal(found, built.generate(**given, max_new_tokens=8, eos_token_id=None, pad_token_id=0))
    assert whole.shape == found.shape


def test_blocks_in_another_order_keep_their_windows() -> None:
    """A sliding window belongs to the block that was trained with it."""
    _, model = pair("gemma2", "Model")
    windows = model.architecture.stack.windows
    model.layers = model.layers[1:]
    assert model.architecture.stack.windows == windows[1:] != windows[:-1]


def test_saving_says_where_the_config_has_another_depth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, model = pair("bert", "ForMaskedLM")
    model.bert.encoder.layer = model.bert.encoder.layer[:1]
    model.save_pretrained(tmp_path)
    assert "the model has 1 blocks, and its config says 3" in caplog.text


def test_a_list_of_layers_that_share_their_block_cannot_be_cut(tmp_path: Path) -> None:
    _, model = pair("albert", "Model")
    stack = depths(model)[0]
    stack.blocks = nn.ModuleList([*stack.blocks, copy.deepcopy(stack.blocks[0])])
    with pytest.raises(ConfigError, match="num_hidden_layers"), torch.no_grad():
        model(**inputs("albert", (5,)))
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    _, empty = pair("bert", "Model")
    empty.encoder.layer = nn.ModuleList()
    with pytest.raises(ConfigError, match="the model has 0 blocks"), torch.no_grad():
        empty(**inputs("bert", (5,)))
