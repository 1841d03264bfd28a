"""Other times of day for a plugin under test."""
from __future__ import annotations

import contextlib
import datetime
import inspect
import sys
import time
from typing import Any, Callable, Iterator

_NAMES = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
_BASE = 1_700_000_000.0


def _frozen(seconds: float) -> dict[Any, Any]:
    """What stands in for what."""
    def reads(scale: float, whole: bool) -> Callable[[], Any]:
        now = (_BASE + seconds) * scale
        return lambda: int(now) if whole else now

    out: dict[Any, Any] = {}
    for name in _NAMES:
        out[getattr(time, name)] = reads(1, False)
        out[getattr(time, name + "_ns")] = reads(1e9, True)

    def now(cls: Any, tz: Any = None) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(_BASE + seconds, tz)

    def utcnow(cls: Any) -> datetime.datetime:
        return now(cls, datetime.timezone.utc).replace(tzinfo=None)

    methods = {"now": classmethod(now), "utcnow": classmethod(utcnow), "today": classmethod(now)}
    out[datetime.datetime] = type("datetime", (datetime.datetime,), methods)
    return out


def _modules(plugin: Any) -> list[Any]:
    module = sys.modules.get(getattr(plugin, "__module__", None) or type(plugin).__module__)
    return [m for m in (time, datetime, module) if m is not None]


@contextlib.contextmanager
def shifted_clocks(plugin: Any, seconds: float) -> Iterator[None]:
    """Every clock that `plugin` can name stands still, at a fixed moment and `seconds` more."""
    instead = _frozen(seconds)
    spaces = [vars(m) for m in _modules(plugin)]
    code = plugin if inspect.isfunction(plugin) else getattr(type(plugin), "__call__", None)
    if inspect.isfunction(code):
        spaces.append(code.__globals__)
    kept = []
    for space in spaces:
        for name, value in list(space.items()):
            if getattr(value, "__hash__", None) is not None and inspect.isroutine(value) | inspect.isclass(value) and value in instead:
                kept.append((space, name, value))
    try:
        for space, name, value in kept:
            space[name] = instead[value]
        yield
    finally:
        for space, name, value in kept:
            space[name] = value
