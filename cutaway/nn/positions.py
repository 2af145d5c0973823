"""Rotary frequencies and T5's relative buckets, as functions of positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cutaway import native
from cutaway.config.architecture import Alibi, Relative, Rotary, RotaryScaling
from cutaway.nn.cpu.ops import at, run, serves
from cutaway.nn.named_modules import Unhookable
from cutaway.nn.norm_mlp import Embedding
from cutaway.nn.packed_batch import TextLengths

STEP_FILL = 15  # further columns like the farthest: the kernels read 16 numbers at a time


def rotary_frequencies(rotary: Rotary, length: int) -> tuple[Tensor, float]:
    """Angular frequencies [size / 2] in radians per position, and the factor on cosine and sine.

    The unscaled frequencies are theta^(-2i/size) (Su et al., 2021, section 3.2.2). Scalings: linear (Chen et al.,
    2023), dynamic NTK, Llama 3.1's wavelength bands, YaRN (Peng et al., 2023, sections 3.2 and 3.4), LongRoPE (Ding
    et al., 2024).
    `length` is the number of tokens of the longest text, on which dynamic and LongRoPE depend.
    """
    size, s = rotary.size, rotary.scaling
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size  # [size / 2]
    plain = 1.0 / rotary.theta**exponents
    if s is None:
        return plain, 1.0
    if s.kind == "linear":
        return plain / s.factor, 1.0
    if s.kind == "dynamic":
        if length <= s.original_length:
            return plain, 1.0
        stretch = s.factor * length / s.original_length - (s.factor - 1)
        return 1.0 / (rotary.theta * stretch ** (size / (size - 2))) ** exponents, 1.0
    if s.kind == "llama3":
        wavelength = 2 * math.pi / plain
        blend = (s.original_length / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
        blend = blend.clamp(0, 1)  # 0: fully stretched (long waves), 1: untouched (short waves)
        return (1 - blend) * plain / s.factor + blend * plain, 1.0
    if s.kind == "yarn":
        return _yarn(plain, rotary, s)
    factors = torch.tensor(s.long_factors if length > s.original_length else s.short_factors)
    return plain / factors, s.attention_factor or 1.0


def _yarn(plain: Tensor, rotary: Rotary, s: RotaryScaling) -> tuple[Tensor, float]:
    size = rotary.size

    def dimension(turns: float) -> float:  # the dimension that makes `turns` full turns over the original length
        return size * math.log(s.original_length / (turns * 2 * math.pi)) / (2 * math.log(rotary.theta))

    low, high = dimension(s.beta_fast), dimension(s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = (torch.arange(size // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    keep = 1 - ramp.clamp(0, 1)

    def magnitude(m: float) -> float:
        return 0.1 * m * math.log(s.factor) + 1.0 if s.factor > 1 else 1.0

    factor = s.attention_factor
    if factor is None:
        both = s.mscale and s.mscale_all_dim
        factor = magnitude(s.mscale) / magnitude(s.mscale_all_dim) if both else magnitude(1.0)
    return (1 - keep) * plain / s.factor + keep * plain, factor


class RotaryTable:
    """Cosines and sines by position, computed once per length and looked up after."""

    def __init__(self, rotary: Rotary) -> None:
        self.rotary = rotary
        self._held: dict[int, tuple[Tensor, Tensor]] = {}  # by regime

    def __call__(
        self, positions: Tensor, longest: int, dtype: torch.dtype, texts: TextLengths | None = None
    ) -> tuple[Tensor, Tensor]:
        """positions [...] -> cosines and sines [..., 1, size], to be applied to [..., heads, size].

        Args:
            longest: more than any of the positions.
            texts: how long each position's own text is, where the angles depend on it.
        """
        if not self.rotary.by_length:
            cos, sin = self._looked_up(0, longest, longest, positions)
        else:
            assert texts is not None
            cos, sin = self._by_text(positions, longest, texts)
        return cos[..., None, :].to(dtype), sin[..., None, :].to(dtype)

    def _by_text(self, positions: Tensor, longest: int, texts: TextLengths) -> tuple[Tensor, Tensor]:
        """Cosines and sines [..., size], each text's own: what stands beside it in the batch changes nothing."""
        lengths = {self.rotary.regime(n): n for n in texts.lengths}
        if lengths.keys() <= {0, 1}:
            made = {regime: self._looked_up(regime, n, longest, positions) for regime, n in lengths.items()}
            if len(made) == 1:
                return next(iter(made.values()))
            far = torch.tensor([self.rotary.regime(n) for n in texts.lengths], device=positions.device)
            here = (far[texts.owners] == 1)[..., None]
            return torch.where(here, made[1][0], made[0][0]), torch.where(here, made[1][1], made[0][1])
        by_text = [rotary_frequencies(self.rotary, n) for n in texts.lengths]
        frequencies = torch.stack([f for f, _ in by_text]).to(positions.device)  # [texts, size / 2]
        return self._waves(positions[..., None] * frequencies[texts.owners], by_text[0][1])

    def _looked_up(self, regime: int, length: int, longest: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        held = self._held.get(regime)
        if held is None or held[0].shape[0] < longest or held[0].device != positions.device:
            frequencies, factor = rotary_frequencies(self.rotary, length)
            steps = torch.arange(max(256, 2 * longest), dtype=torch.float32)
            angles = steps[:, None] * frequencies  # [rows, size / 2]
            held = self._held[regime] = self._waves(angles.to(positions.device), factor)
        cos, sin = held
        return cos[positions], sin[positions]

    def _waves(self, angles: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """angles [..., size / 2] -> cosines and sines [..., size]."""
        pairs = self.rotary.interleaved
        angles = angles.repeat_interleave(2, -1) if pairs else torch.cat((angles, angles), -1)
        sin = angles.sin() * factor
        # so that a rotation is one exchange, one product and one sum
        (sin[..., ::2] if pairs else sin[..., : sin.shape[-1] // 2]).neg_()
        return angles.cos() * factor, sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first cos.shape[-1] numbers of each head; x [..., heads, head_size].

    The sines of the first half are negative, so the rotated pair is (a cos - b sin, b cos + a sin).
    """
    size = cos.shape[-1]
    fits = cos.shape == sin.shape == (*x.shape[:-2], 1, size) and size % 2 == 0 and size <= x.shape[-1]
    if fits and x.stride()[-2:] == (x.shape[-1], 1) and serves(x, cos, sin):
        return _rotated_by_kernel(x, cos.contiguous(), sin.contiguous())
    rotated, rest = (x, None) if size == x.shape[-1] else (x[..., :size], x[..., size:])
    rotated = torch.addcmul(rotated * cos, rotated.roll(size // 2, -1), sin)
    return rotated if rest is None else torch.cat((rotated, rest), -1)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As `rotate` where neighbouring numbers are a pair (GPT-J): the sines of the first of each are negative."""
    size = cos.shape[-1]
    rotated, rest = (x, None) if size == x.shape[-1] else (x[..., :size], x[..., size:])
    exchanged = rotated.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)  # [..., heads, size]
    rotated = torch.addcmul(rotated * cos, exchanged, sin)
    return rotated if rest is None else torch.cat((rotated, rest), -1)


def _rotated_by_kernel(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` by the compiled kernel: x [..., heads, head_size], cos and sin [..., 1, size] for as many rows."""
    rows = x if x.dim() == 3 else x.flatten(0, -3)  # [rows, heads, head_size]
    out, dtype = torch.empty(x.shape, dtype=x.dtype), x.dtype
    run(
        native.Rope(
            rows.shape[0],
            at(rows, dtype, rows.shape, 1),
            *(at(y, dtype, (*x.shape[:-2], 1, cos.shape[-1])) for y in (cos, sin)),
            out.data_ptr(),
            rows.stride(0),
            *rows.shape[1:],
            cos.shape[-1],
            dtype == torch.bfloat16,
        )
    )
    return out


class AlibiTable:
    """What ALiBi adds to scores, from the places of queries and keys."""

    def __init__(self, spec: Alibi, n_heads: int) -> None:
        self.spec = spec
        near = 2 ** math.floor(math.log2(n_heads))
        # a power of two of heads has a geometric series; the rest has every other term of the next finer one
        slopes = [2.0 ** (-8.0 * (h + 1) / near) for h in range(near)]
        slopes += [2.0 ** (-4.0 * (2 * h + 1) / near) for h in range(n_heads - near)]
        self.slopes = torch.tensor(slopes, device="cpu")  # [heads]

    def __call__(self, queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
        """queries [..., q] and keys [..., k] are places; the bias is [..., heads, q, k]."""
        return (self._at(keys)[..., None, :] - self._at(queries)[..., None]).mul_(self.spec.scale).to(dtype)

    def _at(self, places: Tensor) -> Tensor:
        """places [..., n] -> [..., heads, n]."""
        slopes, places = self.slopes.to(places.device)[:, None], places[..., None, :].float()
        if self.spec.rounded:
            return (slopes.bfloat16() * places.bfloat16()).float()
        return slopes * places


class RelativeBias(Unhookable, Embedding):
    """T5's additive score bias by the distance between key and query, in buckets that widen with distance."""

    is_frozen = False  # a frozen one keeps what it has computed of its weight

    def __init__(self, spec: Relative, n_heads: int, causal: bool) -> None:
        super().__init__(spec.buckets, n_heads)
        self.spec, self.causal = spec, causal
        self._by_step: Tensor | None = None

    def buckets(self, distance: Tensor) -> Tensor:
        """Bucket of each distance (key position - query position), Raffel et al. (2020), section 2.1."""
        n = self.spec.buckets
        start = torch.zeros_like(distance)
        if self.causal:
            distance = (-distance).clamp(min=0)
        else:
            n //= 2
            start = (distance > 0).long() * n
            distance = distance.abs()
        exact = n // 2
        ratio = torch.log(distance.float().clamp(min=1) / exact) / math.log(self.spec.max_distance / exact)
        far = (exact + (ratio * (n - exact)).long()).clamp(max=n - 1)
        return start + torch.where(distance < exact, distance, far)

    def by_step(self) -> Tensor:
        """The bias of a causal stack by how far a key is behind its query, the farthest first: float32 [heads, steps].

        The last is a token's own. Beyond the farthest bucket all are alike; the first 16 are of it, as the kernels ask.
        """
        if self._by_step is not None and self.is_frozen:
            return self._by_step
        assert self.causal
        distance = torch.arange(-self.spec.max_distance - STEP_FILL, 1, device=self.weight.device)
        table = super().forward(self.buckets(distance)).T.float().contiguous()  # [heads, steps]
        self._by_step = table if self.is_frozen else None
        return table

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:  # type: ignore[override]
        """queries [..., q] and keys [k] are positions; the bias is [..., heads, q, k]."""
        distance = keys - queries[..., None]  # [..., q, k]
        return super().forward(self.buckets(distance)).movedim(-1, -3)


def bias_of_steps(by_step: Tensor, distance: Tensor) -> Tensor:
    """distance (query - key position) [..., q, k] -> its bias [..., heads, q, k]; by_step: of `RelativeBias`."""
    last = by_step.shape[1] - 1
    return by_step[:, last - distance.clamp(0, last)].movedim(0, -3)
