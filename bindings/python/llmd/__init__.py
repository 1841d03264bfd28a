"""llmd: endpoint scheduling, tokenisation and inference for distributed LLM serving."""

from . import errors
from ._core import Candidates, Decision, Endpoint, Engine, Request, Scheduler, Tokenizer, __version__
from .errors import Error

__all__ = ["Candidates", "Decision", "Endpoint", "Engine", "Error", "Request", "Scheduler", "Tokenizer", "__version__", "errors"]
