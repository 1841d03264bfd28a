"""llmd: endpoint scheduling, tokenisation and inference for distributed LLM serving."""

from . import errors
from ._core import Decision, Endpoint, Engine, Scheduler, Tokenizer, __version__
from .errors import Error

__all__ = ["Decision", "Endpoint", "Engine", "Error", "Scheduler", "Tokenizer", "__version__", "errors"]
