"""Names of files, and the enumerations of a tokenizer's arguments, as upstream exports them."""

from __future__ import annotations

from enum import Enum, StrEnum

from cutaway.errors import ConfigError

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "pytorch_model.bin"
WEIGHTS_INDEX_NAME = "pytorch_model.bin.index.json"
SAFE_WEIGHTS_NAME = "model.safetensors"
SAFE_WEIGHTS_INDEX_NAME = "model.safetensors.index.json"
GENERATION_CONFIG_NAME = "generation_config.json"
MODEL_CARD_NAME = "modelcard.json"
ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.bin"
ADAPTER_SAFE_WEIGHTS_NAME = "adapter_model.safetensors"
TRAINER_STATE_NAME = "trainer_state.json"
TRAINING_ARGS_NAME = "training_args.json"
PREFIX_CHECKPOINT_DIR = "checkpoint"
SPIECE_UNDERLINE = SENTENCEPIECE_UNDERLINE = "\u2581"
VERY_LARGE_INTEGER = int(1e30)
LARGE_INTEGER = int(1e20)
DUMMY_INPUTS = [[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]]
DUMMY_MASK = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
ENV_VARS_TRUE_VALUES = frozenset({"1", "ON", "YES", "TRUE"})


class ExplicitEnum(str, Enum):
    """An enumeration whose members are texts; a wrong one lists the right ones."""

    @classmethod
    def _missing_(cls, value: object) -> object:
        listed = ", ".join(repr(member.value) for member in cls)
        raise ConfigError(f"{value!r} is no {cls.__name__}; it may be {listed}.")


class TensorType(StrEnum):
    """What `return_tensors` may be."""

    PYTORCH = "pt"
    NUMPY = "np"
    MLX = "mlx"


class PaddingStrategy(StrEnum):
    """What `padding` may be."""

    LONGEST = "longest"
    MAX_LENGTH = "max_length"
    DO_NOT_PAD = "do_not_pad"


class TruncationStrategy(StrEnum):
    """What `truncation` may be."""

    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    LONGEST_FIRST = "longest_first"
    DO_NOT_TRUNCATE = "do_not_truncate"


class OptimizerNames(ExplicitEnum):
    """What `optim` may be."""

    ADAMW_TORCH = "adamw_torch"
    ADAMW_TORCH_FUSED = "adamw_torch_fused"
    ADAFACTOR = "adafactor"
    ADAGRAD = "adagrad"
    RMSPROP = "rmsprop"
    SGD = "sgd"
