"""Logs: events with fields, as JSON or for a terminal, with the request id on every line."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer

bind = structlog.contextvars.bind_contextvars
clear = structlog.contextvars.clear_contextvars


def configure(service: str, node: str, log_format: str, level: str) -> None:
    """Send all logging of this process to standard output; call once at its start."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        # local variables hold tokens and user-data
        shared.append(ExceptionRenderer(ExceptionDictTransformer(show_locals=False)))
        renderer: Any = structlog.processors.JSONRenderer(serializer=_dumps)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(),  # one write for each line; print would make two
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_drop_meta, renderer])
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    bind(service=service, node=node)


def get(name: str) -> Any:
    """A logger: ``log.info("step_done", step=…, ms=…)``."""
    return structlog.get_logger(module=name)


def _dumps(event: dict[str, Any], default: Any = None, **_: Any) -> str:
    return orjson.dumps(event, default=default or str).decode()


def _drop_meta(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(_, __, event)
