"""`is_torch_available()` and the like: whether a package is there, without importing it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

# what follows `is_` and stands before `_available` -> the package that is imported
_SAME = """
    accelerate aim apex av causal_conv1d codecarbon coloredlogs datasets decord detectron2 dvclive einops essentia faiss
    g2p_en gguf hqq jieba jumanpp kenlm levenshtein librosa liger_kernel lomo_optim mamba_ssm matplotlib mlx natten
    ninja nltk num2words onnx onnxruntime onnxscript openai openvino optimum optuna pandas peft phonemizer pretty_midi
    psutil py3nvml pyctcdecode pytesseract pytest pytorch_quantization quark ray rich rjieba sacremoses safetensors
    schedulefree scipy sentencepiece seqio soundfile soxr spacy spqr sudachi swanlab tensorboard tiktoken timm
    tokenizers torch torchao torchaudio torchdistx torchvision torchcodec trackio triton trl uvicorn vllm vptq wandb
    yt_dlp clearml neptune mlflow kernels requests bitsandbytes sklearn bs4 ftfy cv2 auto_gptq gptqmodel auto_round
    aqlm eetq flute compressed_tensors mistral_common pygments pydantic fastapi galore_torch cython numba diffusers
    sagemaker uroman xlstm
"""
PACKAGES = {name: name for name in _SAME.split()} | {
    "jinja": "jinja2",
    "ipython": "IPython",
    "comet": "comet_ml",
    "vision": "PIL",
    "protobuf": "google.protobuf",
    "ray_tune": "ray.tune",
    "speech": "torchaudio",
    "audio": "torchaudio",
    "optimum_quanto": "optimum.quanto",
    "ipex": "intel_extension_for_pytorch",
    "auto_awq": "awq",
    "ccl": "oneccl_bindings_for_pytorch",
    "cython": "Cython",
}
# what no build of cutaway uses: TensorFlow, JAX, and chips that it has no kernels for
_NEVER = frozenset(
    (
        "tf", "flax", "torch_npu", "torch_hpu", "torch_mlu", "torch_musa", "torch_neuron", "torch_neuroncore",
        "torch_xla", "torch_xpu", "torch_tpu", "torch_tensorrt_fx", "flash_attn_2", "flash_attn_3", "flash_attn_4",
        "sagemaker_dp", "sagemaker_mp", "fbgemm_gpu", "keras_nlp", "tensorflow_text", "tensorflow_probability",
        "deepspeed",
    )
)  # fmt: skip


@functools.cache
def _installed(package: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _torch(ask: Callable[[Any], bool]) -> bool:
    import torch

    return bool(ask(torch))


_ASKED: dict[str, Callable[[Any], bool]] = {
    "torch_cuda": lambda torch: torch.cuda.is_available(),
    "torch_mps": lambda torch: torch.backends.mps.is_available(),
    "torch_bf16_cpu": lambda torch: True,
    "torch_bf16_gpu": lambda torch: torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    "torch_bf16": lambda torch: torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    "torch_tf32": lambda torch: torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8,
    "torch_compile": lambda torch: hasattr(torch, "compile"),
    "torch_fp16_available_on_device": lambda torch: True,
    "torch_sdpa": lambda torch: True,
    "torch_flex_attn": lambda torch: True,
    "torch_deterministic": lambda torch: True,
    "torch_distributed": lambda torch: torch.distributed.is_available(),
    "torch_accelerator": lambda torch: torch.accelerator.is_available(),
}


def known(name: str) -> bool:
    """Whether `name` is a question that this module answers."""
    what = name.removeprefix("is_").removesuffix("_available")
    return name == f"is_{what}_available" and (what in PACKAGES or what in _NEVER or what in _ASKED)


def __getattr__(name: str) -> Any:
    """`is_X_available`, for every X of the tables above."""
    if not known(name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    what = name.removeprefix("is_").removesuffix("_available")

    def answer(*version: object, **kwargs: object) -> bool:
        if what in _ASKED:
            return _torch(_ASKED[what])
        return what not in _NEVER and _installed(PACKAGES[what])

    answer.__name__ = answer.__qualname__ = name
    answer.__doc__ = f"Whether {what} can be used here."
    globals()[name] = answer
    return answer


def is_torch_greater_or_equal(version: str, accept_dev: bool = False) -> bool:
    """Whether this torch is at least of this version."""
    from importlib.metadata import version as installed

    from cutaway.compat.versions import parts

    return parts(installed("torch")) >= parts(version)


def is_torch_tf32_available() -> bool:
    """Whether a GPU computes in TF32."""
    return _torch(_ASKED["torch_tf32"])


def is_in_notebook() -> bool:
    """Whether this runs in a notebook."""
    import sys

    shell = sys.modules.get("IPython")
    found = None if shell is None else shell.get_ipython()
    return found is not None and "IPKernelApp" in getattr(found, "config", {})


def is_torch_bf16_available_on_device(device: str) -> bool:
    """Whether a device computes in bfloat16: every one that torch names does, some slowly."""
    return device != "cuda" or _torch(_ASKED["torch_bf16_gpu"])


def is_torch_fp16_available_on_device(device: str) -> bool:
    """Whether a device computes in float16: every one that torch names does, some slowly."""
    return device != "cuda" or _torch(_ASKED["torch_cuda"])


def is_deepspeed_zero3_enabled() -> bool:
    """Whether DeepSpeed holds a part of the weights in each process: never here, where `fsdp=True` does that."""
    return False


def is_flash_attn_greater_or_equal_2_10() -> bool:
    """Never: attention is computed by the engine's own kernels."""
    return False


def is_fsdp_enabled() -> bool:
    """Never: whether training is sharded is for its arguments to say, `fsdp=`, not for the environment."""
    return False


def is_sagemaker_mp_enabled() -> bool:
    """Never: nothing here computes by SageMaker's model parallelism."""
    return False


def is_torchdynamo_compiling() -> bool:
    """Whether torch.compile is reading the code that asks."""
    import torch

    return bool(torch.compiler.is_compiling())
