"""Names that can be imported and not used: the error says what to use here.

A script imports `BitsAndBytesConfig` whether or not it is told to load in 4 bit. So the name is there, and whoever
calls it, or anything on it, hears what there is instead. The same holds for every name of upstream's that is not built
(`cutaway.compat.not_built`): a script names twenty families to ask `isinstance`, and loads one.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

from cutaway.errors import CutawayError

_BYTES = 'dtype="int8" computes with bytes, and gguf_file= loads weights of 4 to 8 bits'
_CHIP = "cutaway computes on CPUs, CUDA GPUs and Apple's; torch.device says on which"
INSTEAD: dict[str, str] = {
    **dict.fromkeys(
        (
            "BitsAndBytesConfig", "AqlmConfig", "AutoRoundConfig", "AwqConfig", "BitNetQuantConfig",
            "CompressedTensorsConfig", "EetqConfig", "FPQuantConfig", "FbgemmFp8Config", "FineGrainedFP8Config",
            "FourOverSixConfig", "GPTQConfig", "GemmaQuantizationConfig", "HiggsConfig", "HqqConfig", "MetalConfig",
            "Mxfp4Config", "NVFP4Config", "QuantoConfig", "QuarkConfig", "SinqConfig", "SpQRConfig", "TorchAoConfig",
            "VptqConfig", "QuantizedCache", "QuantoQuantizedLayer", "HQQQuantizedLayer", "Fp8QuantizedLayer",
            "QuantizationConfigMixin",
        ),
        _BYTES,
    ),
    "GgufConfig": "pass gguf_file= to from_pretrained",
    "CompileConfig": "the engine is compiled already; leave it out",
    "ContinuousBatchingConfig": "cutaway.generate batches by length itself",
    "ContinuousBatchingManager": "cutaway.generate batches by length itself",
    "KernelConfig": "the kernels are chosen by the machine",
    "DistributedConfig": "start several processes with torchrun; fsdp=True gives each a part of the weights",
    "SynthIDTextWatermarkDetector": "take the mean of compute_g_values of SynthIDTextWatermarkLogitsProcessor",
    "BayesianDetectorConfig": "take the mean of compute_g_values of SynthIDTextWatermarkLogitsProcessor",
    "BayesianDetectorModel": "take the mean of compute_g_values of SynthIDTextWatermarkLogitsProcessor",
    "GreedyLR": "use lr_scheduler_type='reduce_lr_on_plateau', which also follows a metric",
    "get_greedy_schedule": "use get_reduce_on_plateau_schedule, which also follows a metric",
    "TorchExportableModuleWithStaticCache": "use torch.export on the model's forward",
    "convert_and_export_with_cache": "use torch.export on the model's forward",
    "NpuConfig": _CHIP, "TPUTrainer": _CHIP, "HPUTrainer": _CHIP,
    "HfDeepSpeedConfig": "start several processes with torchrun; fsdp=True gives each a part of the weights",
    "WandbCallback": 'pass report_to="wandb" to TrainingArguments',
    "TrackioCallback": 'pass report_to="trackio" to TrainingArguments',
    "MLflowCallback": 'pass report_to="mlflow" to TrainingArguments',
    "TensorBoardCallback": 'pass report_to="tensorboard" to TrainingArguments',
    **dict.fromkeys(
        ("CodeCarbonCallback", "NeptuneCallback", "CometCallback", "ClearMLCallback", "DVCLiveCallback"),
        "write a TrainerCallback, whose on_log is given what is logged",
    ),
    "ALL_ATTENTION_FUNCTIONS": "there is one engine; cutaway.inspect edits a pattern where it arises",
    "AdamW": "use torch.optim.AdamW",
    "TFTrainer": "use Trainer; cutaway is built on PyTorch",
    "TFAutoModel": "use AutoModel; cutaway is built on PyTorch",
    "FlaxAutoModel": "use AutoModel; cutaway is built on PyTorch",
}  # fmt: skip


class _Refusing(type):
    """A class of which nothing can be made or asked."""

    _instead: str

    def _error(cls) -> CutawayError:
        return CutawayError(f"cutaway has no {cls.__name__}: {cls._instead}. See docs/upstream-names.md.")

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise cls._error()

    def __getitem__(cls, key: object) -> NoReturn:
        raise cls._error()

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise cls._error()


@cache
def _not_built() -> dict[str, str]:
    from cutaway.compat.not_built import NAMES

    found = {name: why for why, names in NAMES.items() for name in names.split()}
    return found | {f"{name}Fast": why for name, why in found.items() if name.endswith("Tokenizer")}


def is_refused(name: str) -> bool:
    """Whether `name` is one of upstream's that can be imported and not used."""
    return name in INSTEAD or name in _not_built()


def __getattr__(name: str) -> Any:
    if not is_refused(name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    why = INSTEAD.get(name) or _not_built()[name]
    made = _Refusing(name, (), {"_instead": why, "__doc__": f"Not in cutaway: {why}."})
    made.__module__ = __name__
    globals()[name] = made
    return made
