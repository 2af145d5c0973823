# Written by `python tests/stubs.py --write` from the table of names in __init__.py: change that one.
from cutaway.generate.generation import Token, generate, stream
from cutaway.generate.results import (
    Alternative,
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    GenerateOutput,
    TokenLogprob,
)
from cutaway.generate.settings import GenerationConfig
from cutaway.generate.streaming import AsyncTextIteratorStreamer, BaseStreamer, TextIteratorStreamer, TextStreamer

__all__ = [
    "Alternative",
    "AsyncTextIteratorStreamer",
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
