"""A checkpoint in another form: GGUF for llama.cpp and what is built on it, or safetensors in another number format."""

from cutaway.convert.gguf import to_gguf
from cutaway.convert.safetensors import to_safetensors

__all__ = ["to_gguf", "to_safetensors"]
