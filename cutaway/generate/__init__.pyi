# Written by `python tests/stubs.py --write` from the table of names in __init__.py: change that one.
from cutaway.generate.generation import Token, generate, stream
from cutaway.generate.logprobs import Alternative, TokenLogprob
from cutaway.generate.results import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    GenerateOutput,
)
from cutaway.generate.settings import GenerationConfig
from cutaway.generate.streaming import BaseStreamer, TextIteratorStreamer, TextStreamer

__all__ = [
    "Alternative",
    "BaseStreamer",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "GenerateOutput",
    "GenerationConfig",
    "TextIteratorStreamer",
    "TextStreamer",
    "Token",
    "TokenLogprob",
    "generate",
    "stream",
]
