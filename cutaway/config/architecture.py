"""What a transformer is made of: a small tree of frozen choices that the engine builds from.

A family turns its published config.json into one `Architecture`; nothing else about a family reaches the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Activation = Literal["gelu", "gelu_tanh", "gelu_quick", "relu", "silu", "tanh"]

# The published spellings of the same functions.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


@dataclass(frozen=True)
class Norm:
    """LayerNorm (Ba et al., 2016) or RMSNorm (Zhang and Sennrich, 2019).

    `offset` is added to the weight of an RMSNorm (Gemma: 1, its weights being what differs from 1).
    """

    kind: Literal["layer", "rms"]
    eps: float
    offset: float = 0.0
    bias: bool = True


@dataclass(frozen=True)
class Learned:
    """One trained vector per position.

    `offset` rows of the table are never used (BART: 2). With `after_padding`, counting starts after `offset` and skips
    padding tokens by their id (RoBERTa). With `fixed`, the vectors are sines and cosines that no training changes.
    With `endless`, they are sines and cosines for any position, which files do not hold (M2M-100).
    With `skips_hidden`, a token that the mask hides has no position of its own, also in the middle of a text (OPT).
    """

    size: int
    offset: int = 0
    after_padding: bool = False
    fixed: bool = False
    skips_hidden: bool = False
    endless: bool = False

    @property
    def longest(self) -> int | None:
        """The most tokens that one text can have, None where any number has positions."""
        if self.endless:
            return None
        return self.size - self.offset if self.after_padding else self.size


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are stretched beyond the trained length; fields that a kind does not use stay 0."""

    kind: Literal["linear", "dynamic", "llama3", "yarn", "longrope"]
    factor: float
    original_length: int
    low_freq_factor: float = 0.0
    high_freq_factor: float = 0.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding (Su et al., 2021) on the first `size` numbers of each head.

    A number is turned with the one half of `size` after it; `interleaved`, neighbours are turned together (GPT-J).
    `longest` is the most tokens that one text can have, None where the formula serves any number.
    """

    theta: float
    size: int
    longest: int | None
    scaling: RotaryScaling | None = None
    interleaved: bool = False

    @property
    def by_length(self) -> bool:
        """Whether a token's angles depend on how long the text is."""
        return self.scaling is not None and self.scaling.kind in ("dynamic", "longrope")

    def regime(self, length: int) -> int:
        """Which frequencies a text of `length` tokens has: texts of the same regime have the same.

        0 up to the original length; beyond it 1, or the length itself, where each has its own (dynamic NTK).
        """
        if self.scaling is None or not self.by_length or length <= self.scaling.original_length:
            return 0
        return length if self.scaling.kind == "dynamic" else 1


@dataclass(frozen=True)
class Relative:
    """T5's bucketed relative position bias (Raffel et al., 2020, section 2.1).

    per_layer: whether each layer has a table of its own (UMT5), where else all layers of a stack share one.
    """

    buckets: int
    max_distance: int
    per_layer: bool = False


@dataclass(frozen=True)
class Distances:
    """DeBERTa's scores of distances (He et al., 2021): one vector per distance, which each layer compares with queries
    and with keys.

    Attributes:
        span: the table has 2 * span rows: distances from -span to span - 1, or buckets of distances.
        longest: where the last bucket begins; 0 where each distance has a row of its own.
        to_keys: whether queries are compared with distances as keys ("c2p").
        to_queries: whether keys are compared with distances as queries ("p2c").
        shared: whether a layer makes distances into keys and queries as it does words, else by matrices of their own.
        norm: of the table, or None. dropout: of the table, in each layer.
    """

    span: int
    longest: int
    to_keys: bool
    to_queries: bool
    shared: bool
    norm: Norm | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class DistanceWaves:
    """Transformer-XL's scores of distances, as XLNet has them (Dai et al., 2019, section 3.3; Yang et al., 2019).

    A distance is a vector of sines and cosines, which each layer makes keys of by a matrix of its own. Words, distances
    and whether two words are of the same segment are each asked with a bias of their own on the query.

    Attributes:
        farthest: the distance that stands for all beyond it; 0 where each has its own waves.
        dropout: of the waves, once for all layers.
    """

    farthest: int = 0
    dropout: float = 0.0


@dataclass(frozen=True)
class Convolution:
    """DeBERTa-v2's sum of neighbouring words: norm(block(x) + activation(convolution(x))), after the first block.

    size: how many words one sum reads, an odd number. groups: into how many parts the hidden size is cut for it.
    """

    size: int
    groups: int
    activation: Activation
    dropout: float = 0.0


@dataclass(frozen=True)
class Alibi:
    """Scores that fall with distance, by a slope for each head (Press et al., 2021); hidden words are not counted.

    scale: a factor on the slopes. rounded: slope times place is rounded to bfloat16 before all else (Falcon).
    """

    scale: float = 1.0
    rounded: bool = False


@dataclass(frozen=True)
class Embedding:
    """How ids become the vectors that enter the first block.

    width: of the tables and the norm, where a matrix leads from them to the hidden size (ALBERT); None without one.
    scales_inputs: whether vectors that are given in place of tokens are scaled too (Granite, the decoder of Marian).
    scales_table: whether the factor is the token table's own, so that calling the table gives scaled vectors (Gemma).
    projects_tokens: whether that matrix has no bias and makes token vectors wide before positions are added (OPT-350m).
    takes_types: whether types are taken where `n_types` is 0, and change nothing (DeBERTa, whose tokenizer gives them).
    """

    vocab_size: int
    positions: Learned | None = None
    n_types: int = 0
    norm: Norm | None = None
    scale: float = 1.0
    pad_id: int | None = None
    dropout: float = 0.0
    width: int | None = None
    scales_inputs: bool = False
    scales_table: bool = False
    projects_tokens: bool = False
    takes_types: bool = False


@dataclass(frozen=True)
class Attention:
    """Scaled dot-product attention; `n_kv_heads` < `n_heads` shares each key/value head among several queries.

    `norm` is of queries and keys, before their positions: over the numbers of each head (Qwen3), there with weights of
    its "own" for each (Cohere) or in "parts" (StableLM: one layer for each), or over those of "all" heads (OLMo 2).
    With `softcap`, a score s becomes softcap tanh(s / softcap) before anything is hidden (Gemma 2). With `distances`,
    scores have a part that depends on how far a query and a key are apart, and on both of them.
    """

    n_heads: int
    n_kv_heads: int
    head_size: int
    scale: float
    bias: bool = True
    out_bias: bool = True
    dropout: float = 0.0
    out_dropout: float | None = None
    norm: Norm | None = None
    norm_over: Literal["head", "own", "parts", "all"] = "head"
    softcap: float | None = None
    distances: Distances | DistanceWaves | None = None

    @property
    def compares_types(self) -> bool:
        """Whether scores depend on which words are of the same type, whatever the types are."""
        return isinstance(self.distances, DistanceWaves)


@dataclass(frozen=True)
class Experts:
    """`n` feed-forward layers, of which a router gives each token `top`; their weights may be made to sum to 1."""

    n: int
    top: int
    renormalized: bool = False


@dataclass(frozen=True)
class FeedForward:
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)) when gated (Shazeer, 2020); or many of them.

    down_bias: whether the last layer has a bias, where it is otherwise than in the others.
    """

    size: int
    activation: Activation
    gated: bool = False
    bias: bool = True
    dropout: float = 0.0
    down_bias: bool | None = None
    experts: Experts | None = None

    @property
    def width(self) -> int:
        """The inner numbers of a token, all experts together."""
        return self.size * (1 if self.experts is None else self.experts.n)


@dataclass(frozen=True)
class Stack:
    """A tower of blocks that are equal but for what is given layer by layer.

    Attributes:
        windows: how far each layer sees, () for everywhere: a layer with window w lets a token see those less than w
            places from it, on both sides, or before it where the stack is causal; None is no bound.
        layer_positions: the rotary positions of each layer, () where all have those in `positions`.
        norm_place: before each layer ("pre"), after it and the addition ("post"), or before both layers of a block,
            which read the same input ("parallel", GPT-NeoX) and maybe the same norm of it ("shared", GPT-J); before
            each layer and on its result before the addition ("both", Gemma 2), or on its result alone ("result",
            OLMo 2).
        layer_scales: a factor on the scores of each layer, () where there is none (GPT-2 as Mistral trained it).
        residual_scale: the factor on each layer's result before the addition.
        block_of: the block that each layer is, () where each is one of its own (ALBERT runs one block in every layer).
        group_size: how many blocks stand one after another under one published number (ALBERT's inner groups).
        first_norm: whether the first block norms what attention reads (not in ModernBERT: the embedding just was).
        float16_bound: where infinities of float16 become its largest numbers: after each addition (T5), after each
            block (the encoder of BART), or nowhere.
        projects_out: whether states leave the stack in the width of token vectors, by a matrix without bias (OPT-350m).
        convolution: what the first block adds of each word's neighbours, or None.
    """

    n_layers: int
    hidden_size: int
    embedding: Embedding
    attention: Attention
    feed_forward: FeedForward
    norm: Norm
    norm_place: Literal["pre", "post", "parallel", "shared", "both", "result"]
    final_norm: bool = False
    causal: bool = False
    cross: bool = False
    positions: Rotary | Relative | Alibi | None = None
    dropout: float = 0.0
    windows: tuple[int | None, ...] = ()
    layer_positions: tuple[Rotary | None, ...] = ()
    block_of: tuple[int, ...] = ()
    group_size: int = 1
    first_norm: bool = True
    float16_bound: Literal["", "additions", "blocks"] = ""
    residual_scale: float = 1.0
    convolution: Convolution | None = None
    projects_out: bool = False
    layer_scales: tuple[float, ...] = ()

    def attention_of(self, number: int) -> Attention:
        """The attention of block `number`."""
        attention = self.attention
        return replace(attention, scale=attention.scale * self.layer_scales[number]) if self.layer_scales else attention

    @property
    def out_size(self) -> int:
        """The width of the states that heads read."""
        return self.width if self.projects_out else self.hidden_size

    @property
    def order(self) -> tuple[int, ...]:
        """The block that each layer is."""
        return self.block_of or tuple(range(self.n_layers))

    @property
    def n_blocks(self) -> int:
        """The blocks that have weights of their own."""
        return max(self.order) + 1

    @property
    def width(self) -> int:
        """The width of a token's vector."""
        return self.embedding.width or self.hidden_size

    @property
    def rotary(self) -> tuple[Rotary | None, ...]:
        """The rotary positions of each layer."""
        same = self.positions if isinstance(self.positions, Rotary) else None
        return self.layer_positions or (same,) * self.n_layers

    @property
    def interleaved(self) -> bool:
        """Whether neighbouring numbers of a head are turned together."""
        return any(rotary is not None and rotary.interleaved for rotary in self.rotary)

    @property
    def longest(self) -> int | None:
        """The most tokens that one text can have, or None where the architecture sets no bound."""
        if self.embedding.positions is not None:
            return self.embedding.positions.longest
        return self.positions.longest if isinstance(self.positions, Rotary) else None


@dataclass(frozen=True)
class Architecture:
    """One stack (an encoder, or a decoder when it is causal), or an encoder and a decoder.

    shared_tokens: whether the two read one table of tokens. output_scale: the factor on what the output matrix reads.
    output_cap: a logit x becomes cap tanh(x / cap).
    """

    stack: Stack
    decoder: Stack | None = None
    pooler: bool = False
    init_std: float = 0.02
    tied_output: bool = True
    output_scale: float = 1.0
    output_cap: float | None = None
    shared_tokens: bool = True

    @property
    def writer(self) -> Stack:
        """The stack whose states become logits, in its own vocabulary: the decoder, or the one that there is."""
        return self.stack if self.decoder is None else self.decoder
