"""What an adapter is made of, in the words of PEFT's adapter_config.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cutaway.checkpoint.field_checks import shown_value
from cutaway.checkpoint.field_table import FieldTable, only
from cutaway.errors import CheckpointError, ConfigError

_MERGE = "Merge the adapter into its model with PEFT (merge_and_unload) and load that."
_TENSORS = "the tensors in the file say it"
TABLE = FieldTable(
    "adapter_config.json",
    used=frozenset(
        {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "task_type", "alpha_pattern"}
    ),
    without_effect={
        **dict.fromkeys(
            (
                "target_modules",
                "exclude_modules",
                "modules_to_save",
                "rank_pattern",
                "layers_to_transform",
                "layers_pattern",
                "fan_in_fan_out",
                "ensure_weight_tying",
            ),
            _TENSORS,
        ),
        **dict.fromkeys(
            ("auto_mapping", "peft_version", "base_model_name_or_path", "revision", "megatron_core", "runtime_config"),
            "a note on how the file was made",
        ),
        "inference_mode": "training is asked for in Python",
        **dict.fromkeys(
            ("loftq_config", "eva_config", "corda_config", "lora_ga_config"), "how the first weights were made"
        ),
        "qalora_group_size": "only beside use_qalora",
    },
    refused={
        "bias": only("none", None, instead=_MERGE),
        # others change the base model
        "init_lora_weights": only(True, False, None, "gaussian", "orthogonal", "eva", "lora_ga", instead=_MERGE),
        **dict.fromkeys(
            (
                "lora_bias",
                "use_qalora",
                "alora_invocation_tokens",
                "layer_replication",
                "trainable_token_indices",
                "target_parameters",
                "use_bdlora",
                "arrow_config",
                "kasa_config",
                "velora_config",
                "monteclora_config",
                "megatron_config",
            ),
            only(None, False, 0, "", [], {}, instead=_MERGE),
        ),
    },
)


@dataclass
class LoraConfig:
    """A low-rank change of linear layers: W + scale * B A (Hu et al., 2021).

    Attributes:
        r: the rank of the change, 1 to 4096.
        lora_alpha: scale = lora_alpha / r; with use_rslora lora_alpha / sqrt(r) (Kalajdzievski, 2023).
        lora_dropout: on what A reads, in training.
        target_modules: addresses ("blocks.*.attn.q", "blocks.0-3.mlp"), or ends of published names ("q_proj");
            "all-linear" for every linear layer of the blocks. None: queries and values of self-attention.
        use_dora: also learn the length of each row of W + scale * B A (Liu et al., 2024).
        modules_to_save: addresses of layers that are trained in full and kept with the adapter; "logits" for the head.
        task_type: is written to the file for PEFT ("SEQ_CLS"), and means nothing here.
        alpha_pattern: {published layer: its own lora_alpha}, as a file may say.
    """

    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: list[str] | str | None = None
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: list[str] | None = None
    task_type: str | None = None
    alpha_pattern: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """ConfigError for a value that no adapter can have."""
        if isinstance(self.r, bool) or not isinstance(self.r, int) or not 1 <= self.r <= 4096:
            raise ConfigError(f"r is {shown_value(self.r)}; the rank of an adapter is a whole number, 1 to 4096.")
        if not _number(self.lora_alpha) or not 0 < self.lora_alpha <= 1e6:
            raise ConfigError(f"lora_alpha is {shown_value(self.lora_alpha)}; give a number above 0.")
        if not _number(self.lora_dropout) or not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout is {shown_value(self.lora_dropout)}; give a rate from 0, below 1.")
        for name in ("use_rslora", "use_dora"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {shown_value(getattr(self, name))}; it is True or False.")
        for name in ("target_modules", "modules_to_save"):
            value = getattr(self, name)
            items = [value] if isinstance(value, str) else value
            if items is not None and not (isinstance(items, (list, tuple, set)) and all(_text(v) for v in items)):
                raise ConfigError(f"{name} is {shown_value(value)}; give a list of addresses.")
            setattr(self, name, None if items is None else sorted(items) if isinstance(items, set) else list(items))
        alphas = self.alpha_pattern
        if not isinstance(alphas, dict) or not all(_text(k) and _number(v) and v > 0 for k, v in alphas.items()):
            raise ConfigError(f"alpha_pattern is {shown_value(alphas)}; it maps names of layers to numbers above 0.")

    def scaling(self, rank: int, alpha: float) -> float:
        """What the change of a layer is multiplied by."""
        return alpha / rank**0.5 if self.use_rslora else alpha / rank

    def alpha(self, published: str) -> float:
        """The alpha of a layer by its published name."""
        for name, value in self.alpha_pattern.items():
            if published == name or published.endswith("." + name):
                return value
        return self.lora_alpha

    @classmethod
    def from_file(cls, fields: dict[str, Any], where: str) -> LoraConfig:
        """The config that adapter_config.json states.

        Raises:
            CheckpointError: another kind of adapter, or a value that cannot be.
        """
        kind = fields.get("peft_type")
        if kind != "LORA":
            raise CheckpointError(f"{where}: peft_type is {shown_value(kind)}; only LORA adapters can be loaded.")
        TABLE.check(fields, CheckpointError, where)
        for name in fields.get("alpha_pattern") or {}:
            if set("*+?[](){}|\\$") & set(str(name)):
                raise CheckpointError(f"{where}: alpha_pattern holds {str(name)[:80]!r}; write names of layers.")
        known = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "task_type", "alpha_pattern")
        try:
            return cls(**{name: fields[name] for name in known if fields.get(name) is not None})
        except ConfigError as error:
            raise CheckpointError(f"{where}: {error}") from None


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
