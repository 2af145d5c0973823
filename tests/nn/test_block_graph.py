"""A replayed pass says bit for bit what the blocks' own forward says, and only while the model is what was captured."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from instructions import instructions as instructions
from parity.pairs import inputs, texts
from parity.tiny_models import CONFIGS, ENCODER_DECODERS, HEADS
from torch import Tensor, nn

import cutaway
from cutaway import LoraConfig, native
from cutaway.nn import block_graph
from cutaway.nn.block_graph import BlockGraph, BlockGraphs
from cutaway.nn.cpu.tracked_parameter import EACH
from cutaway.nn.linear import Linear

pytestmark = [
    pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine"),
    pytest.mark.usefixtures("instructions"),
]
# heads as wide as the attention kernel asks for, and room for texts of more than few rows
_WIDE = {"hidden_size": 64, "num_attention_heads": 2, "max_position_embeddings": 160}
_BART = {"d_model": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 160}
FIELDS = {
    "distilbert": {"dim": 64, "n_heads": 2, "max_position_embeddings": 160},
    **dict.fromkeys(("bart", "mbart", "marian", "pegasus", "m2m_100"), _BART),
    "t5": {},
    "deberta-v2": {},
}
# their blocks are kernels from end to end
CAPTURED = (
    *("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert", "modernbert", "eurobert"),
    *("nomic_bert", "gte", "jina_embeddings_v3", "llama", "mistral", "bart", "mbart", "marian", "pegasus", "m2m_100"),
)
OTHERS = ("mpnet", "deberta-v2", "t5", "qwen3", "gemma2")  # scores with a bias, norms and sums that torch computes
HEADED = [
    (family, ending)
    for family in CAPTURED
    if family not in (*ENCODER_DECODERS, "llama", "mistral")
    for ending in HEADS[family]
    if ending not in ("ForMultipleChoice", "LMHeadModel", "ForCausalLM")
]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each pass that is replayed."""
    found: list[int] = []
    play = BlockGraph.replay

    def noting(self: BlockGraph, x: Tensor, *given: Any) -> Tensor:
        found.append(x.numel() // x.shape[-1])
        return play(self, x, *given)

    monkeypatch.setattr(BlockGraph, "replay", noting)
    return found


@contextmanager
def open_blocks() -> Iterator[None]:
    """Inside, the blocks run themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockGraphs, "run", lambda self, stack, x, context, taps, blocks: blocks(stack, x, context, taps))
        yield


def tensors(out: Any) -> list[Tensor]:
    return [value for value in out.values() if isinstance(value, Tensor)]


def assert_same(found: Any, wanted: Any) -> None:
    a, b = tensors(found), tensors(wanted)
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one, other)


def assert_as_open(model: Any, **given: Any) -> None:
    with open_blocks():
        wanted = model(**given)
    assert_same(model(**given), wanted)


def batches(family: str) -> list[dict[str, Any]]:
    """One text, short and long; several, padded on either side or not."""
    lengths: list[tuple[int, ...]] = [
        (5,),
        (2,),
        (9,),
        (1,),
        (24,),
        (3, 3),
        (4, 9, 6),
        (70,),
        (33, 30, 12),
        (120,),
        (7,),
    ]
    more = {"use_cache": False} if family in (*ENCODER_DECODERS, "llama", "mistral", "qwen3", "gemma2") else {}
    return [{**inputs(family, lens, side), **more} for lens, side in zip(lengths, ("left", "right") * 6, strict=False)]


def model(family: str, ending: str = "Model", **fields: Any) -> Any:
    """A tiny random model of ours, its weights spread out so that attention is not uniform."""
    first, config = CONFIGS[family]
    extra = {"pad_token_id": 0} if family == "roberta" else {}
    torch.manual_seed(0)
    made = getattr(cutaway, f"{first}Config")(**{**config, **FIELDS.get(family, _WIDE), **extra, **fields})
    ours = getattr(cutaway, first + ending)(made).eval()
    with torch.no_grad():
        for p in ours.parameters():
            p.mul_(3.0 if p.dim() > 1 else 1.0).add_(torch.randn_like(p) * 0.05)
    return ours


@pytest.fixture(scope="module")
def bert() -> Any:
    return model("bert")


@torch.no_grad()
@pytest.mark.parametrize("family", [*CAPTURED, *OTHERS])
def test_every_family_is_the_same(family: str, played: list[int]) -> None:
    ours = model(family)
    longest = getattr(ours.config, "max_position_embeddings", 1000)  # T5 has no longest text
    for given in batches(family):
        if max(given["input_ids"].shape) <= longest:
            assert_as_open(ours, **given)
    few, many = any(n < block_graph.MANY for n in played), any(n >= block_graph.MANY for n in played)
    assert (few, many) == (family in CAPTURED, family in CAPTURED)


@torch.no_grad()
@pytest.mark.parametrize(("family", "ending"), HEADED)
def test_every_head_is_the_same(family: str, ending: str, played: list[int]) -> None:
    ours = model(family, ending)
    for given in batches(family)[:5]:
        assert_as_open(ours, **given)
    assert played


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "modernbert", "nomic_bert", "bart"])
@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int8 and bfloat16"])
def test_other_numbers_are_the_same(family: str, kind: str, played: list[int]) -> None:
    ours = model(family).to(torch.bfloat16 if "bfloat16" in kind and native.BF16 else torch.float32)
    for module in ours.modules():
        if isinstance(module, Linear):
            module.int8 = "int8" in kind
    for given in batches(family):
        assert_as_open(ours, **given)
    assert played


@torch.no_grad()
def test_every_number_of_rows_is_the_same(bert: Any, played: list[int]) -> None:
    for n in (40, 40, *range(1, 70), *range(70, 160, 13)):
        assert_as_open(bert, input_ids=texts((n,))[0][None])
    for batch in (20, 40, 43, 30):
        assert_as_open(bert, input_ids=torch.stack(texts((6,) * batch)))
    assert {1, 2, 63, 66, 69, 120, 180, 240} <= set(played)
    assert max(played) <= block_graph.MOST


@torch.no_grad()
def test_several_texts_in_a_row_are_the_same(played: list[int]) -> None:
    ours = model("mistral")
    ids = texts((9,))[0][None]
    for _ in range(3):
        for places in ([0, 1, 2, 3, 0, 1, 2, 3, 4], [5, 6, 7, 8, 0, 1, 2, 3, 4]):
            assert_as_open(ours, input_ids=ids, position_ids=torch.tensor([places]), use_cache=False)
    assert played


@torch.no_grad()
def test_a_result_belongs_to_its_caller(bert: Any) -> None:
    first, second = texts((6,))[0][None], texts((6,), seed=2)[0][None]
    for _ in range(3):
        bert(first)
    held = bert(first).last_hidden_state
    kept = held.clone()
    bert(second)
    assert torch.equal(held, kept)
    held.zero_()
    assert torch.equal(bert(first).last_hidden_state, kept)


class Half(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 0.5  # type: ignore[no-any-return]


def _data(ours: Any) -> None:
    ours.blocks[1].mlp.up.weight.data[0] += 1


def _in_place(ours: Any) -> None:
    ours.blocks[1].attn.q.weight.mul_(1.5)


def _bias(ours: Any) -> None:
    ours.blocks[0].attn.o.bias.add_(1.0)


def _another_parameter(ours: Any) -> None:
    ours.blocks[0].mlp.down.weight = nn.Parameter(torch.randn_like(ours.blocks[0].mlp.down.weight))


def _norm_in_place(ours: Any) -> None:
    ours.blocks[1].mlp_norm.weight.mul_(2.0)


def _another_norm(ours: Any) -> None:
    ours.blocks[1].attn_norm.bias = nn.Parameter(torch.randn_like(ours.blocks[1].attn_norm.bias))


def _norm_data(ours: Any) -> None:
    ours.blocks[1].attn_norm.weight.data = torch.randn_like(ours.blocks[1].attn_norm.weight)


def _eps(ours: Any) -> None:
    ours.blocks[0].mlp_norm.eps = 0.5


def _replaced(ours: Any) -> None:
    ours.blocks[1].mlp.down = Half(ours.blocks[1].mlp.down)


def _replaced_block(ours: Any) -> None:
    ours.blocks[1] = copy.deepcopy(ours.blocks[0])


def _hooked(ours: Any) -> None:
    ours.blocks[0].mlp.register_forward_hook(lambda module, args, out: out * 2)


def _hooked_layer(ours: Any) -> None:
    ours.blocks[1].attn.o.register_forward_pre_hook(lambda module, args: (args[0] + 1,))


def _patched(ours: Any) -> None:
    norm = ours.blocks[1].mlp_norm
    norm.forward = lambda x: x + 1


def _int8(ours: Any) -> None:
    for module in ours.modules():
        if isinstance(module, Linear):
            module.int8 = True


def _parametrized(ours: Any) -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    nn.utils.parametrize.register_parametrization(ours.blocks[0].mlp.up, "weight", Twice())


def _another_class(ours: Any) -> None:
    dense = ours.encoder.layer[1].output.dense
    kind = type(dense)
    dense.__class__ = type("Halved", (kind,), {"forward": lambda self, x: kind.forward(self, x) / 2})


def _adapter(ours: Any) -> None:
    ours.add_adapter(LoraConfig(r=2, target_modules="all-linear"))
    for name, p in ours.engine.named_parameters():
        if "lora" in name.lower() or "adapter" in name.lower():
            p.add_(0.5)


def _loaded(ours: Any) -> None:
    ours.load_state_dict({name: value * 1.1 for name, value in ours.state_dict().items()})


CHANGES = [
    *(_data, _in_place, _bias, _another_parameter, _norm_in_place, _another_norm, _norm_data, _eps, _replaced),
    *(_replaced_block, _hooked, _hooked_layer, _patched, _int8, _parametrized, _adapter, _loaded),
    _another_class,
]


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_followed(bert: Any, change: Callable[[Any], None], played: list[int]) -> None:
    ours = copy.deepcopy(bert)
    ids = texts((9,))[0][None]
    for _ in range(4):
        before = ours(ids).last_hidden_state
    assert played
    change(ours)
    for _ in range(4):
        assert_as_open(ours, input_ids=ids)
        assert not torch.equal(ours(ids).last_hidden_state, before)


@torch.no_grad()
@pytest.mark.parametrize("after", [0, 1, 5])
@pytest.mark.parametrize(
    "name", ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"]
)
def test_a_row_that_torch_does_not_see_written_is_found_in_time(
    bert: Any, name: str, after: int, played: list[int]
) -> None:
    """As `Seen` says: within max(rows, columns) / EACH uses, however many replays came before."""
    ours = copy.deepcopy(bert)
    ids = texts((9,))[0][None]
    for _ in range(4 + after):
        before = ours(ids).last_hidden_state
    assert played
    weight = ours.encoder.layer[1].get_submodule(name).weight
    weight.detach().numpy()[3] *= 50
    for _ in range(max(weight.shape) // EACH + 2):
        found = ours(ids).last_hidden_state
    right = copy.deepcopy(ours)(ids).last_hidden_state
    assert torch.equal(found, right) and not torch.equal(found, before)


@torch.no_grad()
def test_a_published_layer_is_followed(played: list[int]) -> None:
    ours = model("modernbert")  # its queries, keys and values are one matrix
    ids = texts((9,))[0][None]
    for change in (
        lambda: ours.layers[1].attn.Wqkv.weight.mul_(1.5),
        lambda: ours.layers[0].mlp.Wi.weight.data.mul_(1.5),
        lambda: ours.layers[1].attn.Wqkv.register_forward_hook(lambda module, args, out: out + 1),
    ):
        for _ in range(4):
            before = ours(ids).last_hidden_state
        assert played
        change()
        for _ in range(3):
            assert_as_open(ours, input_ids=ids)
        assert not torch.equal(ours(ids).last_hidden_state, before)
        played.clear()


def test_what_looks_inside_is_not_replayed(bert: Any, played: list[int]) -> None:
    ids = texts((9,))[0][None]

    def ways() -> Iterator[tuple[str, AbstractContextManager[Any], dict[str, Any]]]:
        yield "gradients", torch.enable_grad(), {}
        yield "record", bert.record("blocks.1.attn.q"), {}
        yield "edit", bert.edit({"blocks.0.resid": lambda x: x * 2}), {}
        yield "autocast", torch.autocast("cpu", dtype=torch.bfloat16), {}
        yield "attentions", torch.no_grad(), {"output_attentions": [1]}
        yield "hidden states", torch.no_grad(), {"output_hidden_states": True}

    with torch.no_grad():
        for _ in range(4):
            plain = bert(ids).last_hidden_state
        assert played
        for name, context, more in ways():
            played.clear()
            with context:
                assert_as_open(bert, input_ids=ids, **more)
            assert not played, name
            assert torch.equal(bert(ids).last_hidden_state, plain)
            assert played, name


@torch.no_grad()
def test_training_mode_is_not_replayed(bert: Any, played: list[int]) -> None:
    ours, ids = copy.deepcopy(bert), texts((9,))[0][None]
    for _ in range(4):
        plain = ours(ids).last_hidden_state
    ours.train()
    played.clear()
    for _ in range(4):
        assert not torch.equal(ours(ids).last_hidden_state, plain)  # it drops out
    assert not played
    ours.eval()
    for _ in range(12):
        assert torch.equal(ours(ids).last_hidden_state, plain)
    assert played


@torch.no_grad()
def test_what_is_no_kernel_is_not_replayed(bert: Any, played: list[int]) -> None:
    ours = copy.deepcopy(bert)
    ours.blocks[1].mlp.down = Half(ours.blocks[1].mlp.down)
    for _ in range(6):
        assert_as_open(ours, input_ids=texts((9,))[0][None])
    assert not played


@torch.no_grad()
def test_a_module_with_a_mind_of_its_own_is_not_captured(bert: Any, played: list[int]) -> None:
    """Somebody's module may compute with our kernels, and do something else at the next call."""
    ours, ids = copy.deepcopy(bert), texts((9,))[0][None]

    class Switch(type(ours.blocks[0].mlp)):  # type: ignore[misc]
        on = True

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return super().forward(x, *args, **kwargs) if Switch.on else kwargs["join"](x)

    ours.blocks[0].mlp.__class__ = Switch
    for on in (True, True, True, False, True):
        Switch.on = on
        assert_as_open(ours, input_ids=ids)
    assert not played


@torch.no_grad()
def test_threads_get_their_own_results(bert: Any, played: list[int]) -> None:
    given = [texts((3 + i,), seed=i)[0][None] for i in range(12)]
    with open_blocks():
        wanted = [bert(ids).last_hidden_state for ids in given]
    wrong: list[int] = []
    start = threading.Barrier(4)

    def work(first: int) -> None:
        start.wait()
        with torch.no_grad():
            for turn in range(60):
                i = (first + turn) % len(given)
                if not torch.equal(bert(given[i]).last_hidden_state, wanted[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(3 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert played


@torch.no_grad()
def test_captured_passes_are_bounded(bert: Any) -> None:
    ours = copy.deepcopy(bert)
    for given in batches("bert") * 2:
        ours(**given)
    assert 1 <= len(ours.graphs._idle) <= 2  # few rows and many
    busy, kind = [], ours.graphs._idle[0][0]
    for _ in range(2 * block_graph.KEPT):  # as if so many threads ran at once
        graph = ours.graphs._take(kind)
        if graph is not None:
            busy.append(graph)
        ours(texts((9,))[0][None])
    assert len(busy) <= block_graph.KEPT
    for graph in busy:
        ours.graphs._give_back(kind, graph)
    assert len(ours.graphs._idle) <= block_graph.KEPT


@torch.no_grad()
def test_old_weights_are_let_go(bert: Any) -> None:
    ours, ids = copy.deepcopy(bert), texts((9,))[0][None]
    for _ in range(4):
        ours(ids)
    layer = ours.blocks[0].mlp.up
    old = weakref.ref(layer.packed.weight)
    layer.weight.mul_(2.0)
    ours(torch.stack(texts((50,) * 20)))  # too many rows: the captured pass is not looked at
    gc.collect()
    assert old() is None
    assert_as_open(ours, input_ids=ids)


@torch.no_grad()
def test_captured_passes_are_not_copied(bert: Any, played: list[int]) -> None:
    ids = texts((9,))[0][None]
    for _ in range(4):
        wanted = bert(ids).last_hidden_state
    for other in (copy.deepcopy(bert), pickle.loads(pickle.dumps(bert))):
        assert not other.graphs._idle
        assert torch.equal(other(ids).last_hidden_state, wanted)
        other.blocks[0].mlp.up.weight.zero_()
        assert torch.equal(bert(ids).last_hidden_state, wanted)
