"""llmd: endpoint scheduling, tokenisation and inference for distributed LLM serving."""

from . import errors
from ._core import (Candidates, Decision, Decisions, Director, Endpoint, Engine, Pending, PreparedSet, Request, Routing, Scheduler,
                    Tokenizer, __version__)
from .errors import Error

__all__ = ["Candidates", "Decision", "Decisions", "Director", "Endpoint", "Engine", "Error", "Pending", "PreparedSet", "Request",
           "Routing", "Scheduler", "Tokenizer", "__version__", "errors"]
