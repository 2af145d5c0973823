"""What a checkpoint says of its model: the config, bounds of its fields, labels, and its `Architecture`."""

from cutaway.config.config import PreTrainedConfig, PretrainedConfig

__all__ = ["PreTrainedConfig", "PretrainedConfig"]
