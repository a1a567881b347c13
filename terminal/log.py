"""The log: JSON lines on stderr or in a file, through one filter that masks what must not be written.

Nothing in this program logs a secret on purpose. The filter is for what slips into a library's message: it
masks whatever looks like a PAN, a token, a signature or a key.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from hw.errors import ReaderError
from hw.pan import mask_pan, passes_luhn
from terminal.errors import SettingsError, TillError

_GAP = "[ -]?"
_VALUES = re.compile(r"[%(<{\n]")
"""Where values begin in a message of asyncio."""

_MASKS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\batt_[\w.~+/-]+=*"), lambda _: "att_[masked]"),
    (re.compile(r"(?i)\b(Bearer|Attestation) +[\w.~+/-]+=*"), lambda found: f"{found[1]} [masked]"),
    (re.compile(r"(?i)\b(X-Signature['\"]?\)?[:,=]? *b?['\"]?)v1=[\w+/-]+=*"), lambda found: f"{found[1]}[masked]"),
    (re.compile(r"\bv1=[\w+/-]{16,}=*"), lambda _: "v1=[masked]"),
    # Sixteen bytes or more: keys, IVs, PIN blocks, sealed data.
    (re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{32,}(?![0-9A-Za-z])"), lambda found: f"[{len(found[0])} hex digits]"),
    # Thirty bytes or more in base64. A path of small letters is none.
    (
        re.compile(r"(?<![\w+/])(?=[\w+/]*[0-9])(?=[\w+/]*[a-z])(?=[\w+/]*[A-Z])[A-Za-z0-9+/_]{40,}={0,2}"),
        lambda found: f"[{len(found[0])} characters of base64]",
    ),
    # ISO 7812: 13 to 19 digits that end in their check digit, as they stand on a card or in one run.
    (re.compile(rf"(?<![0-9])[0-9](?:{_GAP}[0-9]){{12,18}}(?![0-9])"), lambda found: _masked_pan(found[0])),
    # A longer run may hold a PAN anywhere.
    (re.compile(r"(?<![0-9])[0-9]{20,}(?![0-9])"), lambda found: f"[{len(found[0])} digits]"),
)


def _masked_pan(found: str) -> str:
    digits = re.sub("[ -]", "", found)
    return mask_pan(digits) if passes_luhn(digits) else found


def redact(text: str) -> str:
    """The text with whatever looks like a PAN, a token, a signature or a key masked."""
    for pattern, masked in _MASKS:
        text = pattern.sub(masked, text)
    return text


def trace(error: BaseException) -> str:
    """Where an error came from, and the errors behind it: frames without locals, and no stranger's message.

    An error of ours speaks in words that are fit to be read; what a library says may hold what it was given.
    """
    return redact("".join(_trace(error)))


def _trace(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _trace(cause)
        yield "which led to:\n"
    yield from traceback.format_tb(error.__traceback__)
    said = f": {error}" if isinstance(error, (TillError, ReaderError)) else ""
    yield f"{type(error).__name__}{said}\n"


class Redacting(logging.Filter):
    """Lets every record through, its message and its traceback made fit to be read."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message, its arguments and the exception by masked text."""
        message = record.getMessage()
        if record.name.startswith(("httpcore", "hpack")):
            # What happened, never with what: its arguments are requests, headers and certificates.
            message = message.partition(" ")[0]
        elif record.name == "asyncio":
            # Nor here: it shows tasks, futures and callbacks with what they were given and what came of it.
            message = _VALUES.split(str(record.msg), maxsplit=1)[0].strip()
        record.msg, record.args = redact(message), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = trace(record.exc_info[1])
        record.exc_info = record.stack_info = None
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line: ``at`` (seconds since 1970), ``level``, ``logger``, ``message``, ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of JSON."""
        line = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_text:
            line["trace"] = record.exc_text
        return json.dumps(line)


def guard_last_resort() -> None:
    """Make what Python prints by itself fit to be read; asked again, nothing changes.

    That is: records for which no log is open, and errors that end a thread or a finalizer.
    """
    if logging.lastResort is not None and not logging.lastResort.filters:
        logging.lastResort.addFilter(Redacting())
    sys.unraisablehook = _print_uncaught
    threading.excepthook = _print_uncaught


def _print_uncaught(uncaught: sys.UnraisableHookArgs | threading.ExceptHookArgs) -> None:
    if uncaught.exc_value is not None and sys.stderr is not None:
        sys.stderr.write(f"uncaught:\n{trace(uncaught.exc_value)}")


def to_stream(stream: TextIO | None = None) -> logging.Handler:
    """Log everything to the stream, by default stderr; asked again, nothing changes. Gives back the handler."""
    for handler in logging.getLogger().handlers:
        if handler.get_name() == "till-stream" and stream is None:
            return handler
    return _install(logging.StreamHandler(stream or sys.stderr), "till-stream")


def to_file(path: Path) -> logging.Handler:
    """Log everything to the end of that file (made with mode 0600). Raises SettingsError."""
    try:
        path.touch(mode=0o600)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"the log {path} cannot be written: {error.strerror}", advice="Set TILL_LOG to another file."
        ) from None
    return _install(handler, "till-file")


def _install(handler: logging.Handler, name: str) -> logging.Handler:
    handler.set_name(name)
    handler.addFilter(Redacting())
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    # A handler that cannot write must not stop a payment, nor show what it was given.
    logging.raiseExceptions = False
    return handler
