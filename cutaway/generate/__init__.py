"""Text generation: settings, sampling, the search, and the tokens as they come."""

from cutaway.generate.generation import Token, generate, stream
from cutaway.generate.results import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput, GenerateOutput
from cutaway.generate.settings import GenerationConfig
from cutaway.generate.streaming import BaseStreamer, TextIteratorStreamer, TextStreamer

__all__ = [
    "BaseStreamer",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "GenerateOutput",
    "GenerationConfig",
    "TextIteratorStreamer",
    "TextStreamer",
    "Token",
    "generate",
    "stream",
]
