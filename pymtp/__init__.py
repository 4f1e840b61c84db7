"""pymtp: Gemma 4 GGUF models with their Multi-Token-Prediction drafters. Drafts make it faster and never change the output.

    with pymtp.Model("gemma-4-E2B-it-Q4_K_M.gguf") as model:
        print(model.chat([{"role": "user", "content": "Hello"}]).content)
"""
from ._core import Counters, ModelInfo
from ._lib import lib, text as _text
from .errors import (ArgumentError, CancelledError, ContextError, Error, FormatError, LibraryError, MismatchError, NonFiniteError,
                     OutOfMemoryError, ReadError, ResourceError, StateError, UnsupportedError, WriteError)
from .generate import Chunk, Completion, Options, Stats, TokenLogprob
from .gguf_file import File
from .model import Model
from .session import Session, Snapshot, step
from .streams import ChatChunk, ChatCompletion, ChatStream, Generation
from .tokenizer import Decoder, Tokenizer

__version__ = _text(lib.pymtp_version())
__all__ = ["ArgumentError", "CancelledError", "ChatChunk", "ChatCompletion", "ChatStream", "Chunk", "Completion", "ContextError",
           "Counters", "Decoder", "Error", "File", "FormatError", "Generation", "LibraryError", "MismatchError", "Model", "ModelInfo",
           "NonFiniteError", "Options", "OutOfMemoryError", "ReadError", "ResourceError", "Session", "Snapshot", "StateError", "Stats",
           "TokenLogprob", "Tokenizer", "UnsupportedError", "WriteError", "step"]
