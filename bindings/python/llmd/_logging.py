"""The library's log lines, handed to Python's logging under the logger "llmd" and its children."""
from __future__ import annotations

import json
import logging

_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO}
_HEAD = {"level", "ts", "logger", "caller", "msg"}


def emit(lines: list[str], dropped: int) -> None:
    """Called by the extension. Fields of a line stand behind its message and in the record's `llmd` attribute."""
    for line in lines:
        entry = json.loads(line)
        name = entry.get("logger")
        logger = logging.getLogger("llmd." + name if name else "llmd")
        level = _LEVELS.get(entry.get("level"), logging.DEBUG)
        if logger.isEnabledFor(level):
            fields = {key: value for key, value in entry.items() if key not in _HEAD}
            shown = "".join(f" {key}={value!r}" for key, value in fields.items())
            logger.log(level, "%s%s", entry.get("msg"), shown, extra={"llmd": fields})
    if dropped:
        logging.getLogger("llmd").warning("%d log lines were dropped", dropped)
