"""Sparse autoencoders and transcoders from SAELens' files: cfg.json and sae_weights.safetensors in one folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cutaway.checkpoint.field_checks import shown_value
from cutaway.checkpoint.safetensors import Entry, read_header
from cutaway.errors import CheckpointError, ConfigError
from cutaway.jsonfile import read_json
from cutaway.nn.activations.sparse_features import Activation, SparseAutoencoder

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
MOST = 10_000_000  # features, and numbers of a vector
# architecture in cfg.json -> (what makes features, whether it reconstructs another place)
ARCHITECTURES: dict[str, tuple[Activation, bool]] = {
    "standard": ("relu", False),
    "gated": ("gated", False),
    "jumprelu": ("jumprelu", False),
    "topk": ("topk", False),
    "batchtopk": ("jumprelu", False),  # as in inference: above one threshold, which training followed
    "matryoshka_batchtopk": ("jumprelu", False),
    "transcoder": ("relu", True),
    "skip_transcoder": ("relu", True),
    "jumprelu_transcoder": ("jumprelu", True),
    "jumprelu_skip_transcoder": ("jumprelu", True),
}
NORMS = ("none", "layer_norm", "constant_norm_rescale", "expected_average_only_in", "covariance_whitening")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def read_sae(file: str | os.PathLike[str]) -> SparseAutoencoder:
    """A sparse autoencoder from its folder, or from the weights in it.

    Raises:
        ConfigError: a field of cfg.json that is unknown in its meaning, or of a value that cannot be.
        CheckpointError: weights that are damaged, missing, or of other shapes than cfg.json says.
    """
    if not isinstance(file, (str, os.PathLike)):
        raise ConfigError(f"attach_sae({file!r:.60}): give the folder of a sparse autoencoder that SAELens saved.")
    path = Path(file)
    folder = path.parent if path.name in (WEIGHTS, CONFIG) else path
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder. A sparse autoencoder is {CONFIG} and {WEIGHTS} in one.")
    fields = _fields(folder / CONFIG)
    entries, _ = read_header(folder / WEIGHTS)
    return _Reading(folder, fields, entries).built()


def _fields(path: Path) -> dict[str, object]:
    """The fields of cfg.json; those of files from before SAELens 6 under today's names."""
    fields: dict[str, object] = read_json(path, ConfigError)
    metadata = fields.get("metadata")
    if isinstance(metadata, dict):
        fields.setdefault("hook_name", metadata.get("hook_name"))
    fields.setdefault("hook_name", fields.get("hook_point"))
    function = fields.get("activation_fn", fields.get("activation_fn_str"))
    if function == "topk" and fields.get("architecture", "standard") == "standard":
        fields["architecture"] = "topk"
        kwargs = fields.get("activation_fn_kwargs")
        if isinstance(kwargs, dict):
            fields.setdefault("k", kwargs.get("k"))
    elif function not in (None, "relu", "topk"):
        raise ConfigError(f"{path}: activation_fn is {shown_value(function)}; relu and topk are known.")
    if fields.get("normalize_activations") in (None, False):
        fields["normalize_activations"] = "none"
    if fields.get("finetuning_scaling_factor"):
        raise ConfigError(f"{path}: finetuning_scaling_factor is set; fold it into the decoder, and save it again.")
    return fields


class _Reading:
    """One folder while it is read: fields that are checked, and weights of the shapes that they say."""

    def __init__(self, folder: Path, fields: Mapping[str, object], entries: Mapping[str, Entry]) -> None:
        self.config, self.weights = folder / CONFIG, folder / WEIGHTS
        self.fields, self.entries = fields, entries
        self.taken: set[str] = set()

    def built(self) -> SparseAutoencoder:
        architecture = self._choice("architecture", tuple(ARCHITECTURES), "standard")
        activation, transcodes = ARCHITECTURES[architecture]
        d_in, n = self._size("d_in"), self._size("d_sae")
        d_out = self._size("d_out") if transcodes else d_in
        self.dtype = DTYPES[self._choice("dtype", tuple(DTYPES), "float32")]
        norm = self._choice("normalize_activations", NORMS, "none")
        if norm not in ("none", "layer_norm", "constant_norm_rescale"):
            raise ConfigError(
                f"{self.config}: normalize_activations is {norm!r}, whose numbers are not in the file. Fold them into "
                "the weights in SAELens (fold_activation_norm_scaling_factor, fold_activation_whitening), and save it."
            )
        reshaped = self._choice("reshape_activations", ("none", "hook_z"), "none")
        if reshaped == "hook_z" and transcodes:
            raise ConfigError(f"{self.config}: reshape_activations is 'hook_z', which a transcoder has not.")
        training = "topk_threshold" in self.entries
        by_norm = self._flag("rescale_acts_by_decoder_norm", False) and (activation == "topk" or training)
        names = {"W_enc": (d_in, n), "W_dec": (n, d_out), "b_dec": (d_out,)}
        bias = "b_gate" if activation == "gated" else "b_enc"
        read = {name: self._tensor(name, shape) for name, shape in {**names, bias: (n,)}.items()}
        sae = SparseAutoencoder(
            activation,
            read["W_enc"],
            read["W_dec"],
            read[bias],
            read["b_dec"],
            by_norm=by_norm,
            centred=not transcodes and self._flag("apply_b_dec_to_input", True),
            norm=norm,  # type: ignore[arg-type]
            transcodes=transcodes,
            trained_at=str(self.fields.get("hook_name") or "")[:200],
        )
        if activation == "gated":
            sae.magnitude, sae.magnitude_bias = self._tensor("r_mag", (n,)), self._tensor("b_mag", (n,))
        if activation == "topk":
            sae.k = self._size("k", n)
        if activation == "jumprelu" and training:
            sae.threshold = self._tensor("topk_threshold", ()).expand(n).contiguous()
            self._fold_lengths(sae)
        elif activation == "jumprelu":
            sae.threshold = self._tensor("threshold", (n,))
        if "skip" in architecture:
            sae.skip_weight = self._tensor("W_skip", (d_out, d_in))
        extra = sorted(set(self.entries) - self.taken)
        if extra:
            more = ", ".join(map(repr, extra[:4]))
            raise CheckpointError(f"{self.weights} also holds {more}, which an autoencoder of this kind has not.")
        return sae

    @staticmethod
    def _fold_lengths(sae: SparseAutoencoder) -> None:
        """What was compared times the length of a direction is so without, as SAELens saves it for inference."""
        if sae.by_norm:
            lengths = sae.lengths.clamp(min=1e-8)
            sae.encoder, sae.encoder_bias = sae.encoder * lengths, sae.encoder_bias * lengths
            sae.decoder, sae.by_norm = sae.decoder / lengths[:, None], False

    def _choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.fields.get(name, default)
        value = value.removeprefix("torch.") if isinstance(value, str) else value
        if value not in allowed:
            raise ConfigError(f"{self.config}: {name} is {shown_value(value)}; known are {', '.join(allowed)}.")
        return str(value)

    def _flag(self, name: str, default: bool) -> bool:
        value = self.fields.get(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.config}: {name} is {shown_value(value)}; give true or false.")
        return value

    def _size(self, name: str, most: int = MOST) -> int:
        value = self.fields.get(name)
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigError(f"{self.config}: {name} is {shown_value(value)}; give a whole number from 1 to {most:,}.")
        return value

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor in the autoencoder's dtype; its shape is compared before it is read."""
        entry = self.entries.get(name)
        if entry is None:
            there = ", ".join(sorted(self.entries)[:12]) or "nothing"
            raise CheckpointError(f"{self.weights} has no {name!r}; it holds {there}.")
        if entry.shape != shape:
            raise CheckpointError(
                f"{self.weights}: {name} has the shape {list(entry.shape)}, but {CONFIG} makes it {list(shape)}."
            )
        if entry.dtype not in ("F64", "F32", "F16", "BF16"):
            raise CheckpointError(f"{self.weights}: {name} is {entry.dtype}; a floating-point type is needed.")
        self.taken.add(name)
        try:
            with safe_open(self.weights, framework="pt") as opened:
                value: Tensor = opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.weights} cannot be read: {str(error)[:200]}.") from None
        value = value.to(self.dtype)
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{self.weights}: {name} holds numbers that are not finite.")
        return value
