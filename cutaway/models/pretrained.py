"""`PreTrainedModel`: a module with a config that can be loaded, saved, counted and looked into."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, cast

from cutaway.config.config import PretrainedConfig
from cutaway.hub.argument_names import also_called
from cutaway.models import loading
from cutaway.models.configured import ConfiguredModel


class PreTrainedModel(ConfiguredModel):
    """Base of all models, and of a user's own: subclass it, set `config_class`, and build your layers in `__init__`."""

    def __init_subclass__(
        cls, *, config: type[PretrainedConfig] | None = None, prefix: str | None = None, **kwargs: object
    ) -> None:
        """A declaration says `class BertPreTrainedModel(PreTrainedModel, config=BertConfig, prefix="bert")`."""
        super().__init_subclass__(**kwargs)
        if config is not None:
            cls.config_class = config
        if prefix is not None:
            cls.base_model_prefix = prefix

    # -- loading and saving ------------------------------------------------------------------------------------------

    @classmethod
    @also_called(pretrained_model_name_or_path="name")
    def from_pretrained(cls, name: str | Path | None, *args: Any, **kwargs: Any) -> Self:
        """Load a checkpoint by hub name, folder or built-in name; the model is in evaluation mode.

        Args:
            name: such as "bert-base-uncased", "./my-model" or "cutaway/sentiment"; None with `config` and `state_dict`.
            **kwargs: config (a PretrainedConfig), revision, token, cache_dir, local_files_only, subfolder, gguf_file,
                dtype (or torch_dtype), output_loading_info, ignore_mismatched_sizes (weights of another shape than the
                config's are drawn anew, and named), device_map ("auto", a device, or {"": device}), state_dict (tensors
                by published names, in place of the checkpoint's); any other name is a field of the config. dtype is a
                torch dtype or its name; "int8" and "int4" to keep matrices in 8 or 4 bits and nothing else of them;
                with "int8" and keep_weights=True, to compute with bytes beside the weights, which can be trained;
                "fastest" to measure what is worth it (`precision` then says what and why).
                Without it, or with "auto" or "stored", weights keep theirs.

        Raises:
            HubError: the name cannot be turned into files.
            CheckpointError: a file is damaged or does not fit.
            ConfigError: a field of the config cannot be built.
        """
        return cast(Self, loading.load(cls, name, *args, **kwargs))

    @classmethod
    def from_config(cls, config: PretrainedConfig, **kwargs: object) -> Self:
        """A model with fresh random weights, in evaluation as in training mode as `cls(config)` is.

        Args:
            **kwargs: dtype (or torch_dtype) of the weights, by default the config's; what the class takes beside it.
        """
        return cast(Self, loading.fresh(cls, config, dict(kwargs)))

    _from_config = from_config

    @also_called(save_directory="folder")
    def save_pretrained(self, folder: str | Path, *, max_shard_size: int | str = "5GB", **kwargs: object) -> None:
        """Write config.json, model.safetensors and, for a model that generates, generation_config.json.

        Names are the published ones: Transformers reads the folder. Over an earlier save, the folder holds that one or
        this one, never parts of both, whatever happens.

        Raises:
            OSError: the disk is full, or the folder cannot be written; it is as it was.
            OutputError: another process is saving there.
        """
        loading.save(self, folder, max_shard_size=max_shard_size, **kwargs)

    def post_init(self) -> None:
        """Give fresh layers their first weights; a user's own model may call it at the end of `__init__`."""
        self.init_weights()

    def init_weights(self) -> None:
        """Draw every weight anew: normal with the config's initializer_range, biases 0, norms 1."""
        std = loading.init_std(self)
        for module in self.engine.modules():
            loading.init_module(module, std)
