"""llmd: endpoint scheduling, tokenisation and inference for distributed LLM serving."""

from . import errors
from ._core import (Candidates, Decision, Decisions, Endpoint, Engine, PreparedSet, Request, Scheduler, Tokenizer,
                    __version__)
from .errors import Error

__all__ = ["Candidates", "Decision", "Decisions", "Endpoint", "Engine", "Error", "PreparedSet", "Request", "Scheduler",
           "Tokenizer", "__version__", "errors"]
