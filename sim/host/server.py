"""The host in its own process: a data directory, a socket, uvicorn."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sim.faults import AnyRule, Faults
from sim.host.app import HostApp, create_app
from sim.host.config import HostConfig
from sim.host.hsm import Hsm, load_master_key
from sim.host.ledger import Ledger
from sim.host.refusals import Why, error_body
from sim.host.wire import CLOSE
from sim.seed import seeded
from terminal.clock import Now, system_now, system_random

LEDGER_FILE = "host.db"
LOCK_FILE = "host.lock"
_BACKLOG = 1024


class InUse(Exception):
    """Another host works on this data directory."""


@contextmanager
def open_host(
    directory: Path,
    *,
    seed: int | None = None,
    rules: list[AnyRule] | None = None,
    config: HostConfig | None = None,
    now: Now = system_now,
) -> Iterator[HostApp]:
    """A host over a data directory (made where it is missing, 0700), which nobody else may use meanwhile.

    With a ``seed`` keys, ids and codes come from it; each start draws from a part of its own, so that a restart
    repeats nothing. Raises InUse, LedgerError, HsmError, OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory / LOCK_FILE):
        ledger = Ledger(directory / LEDGER_FILE)
        try:
            (directory / LEDGER_FILE).chmod(0o600)
            random = system_random if seed is None else seeded(seed, f"host {ledger.boots}")
            chances = system_random if seed is None else seeded(seed, f"faults {ledger.boots}")
            hsm = Hsm(load_master_key(directory, random), random)
            yield create_app(ledger, hsm=hsm, now=now, random=random, faults=Faults(chances, rules), config=config)
        finally:
            ledger.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(f"{path.parent} is in use by another host") from None
        yield
    finally:
        os.close(descriptor)


def bind(name: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks one. Raises OSError."""
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((name, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def serve(app: HostApp, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``ready`` is called once connections are taken."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="critical",
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=2,
    )
    _Server(config, ready).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, which says when it is ready, and takes a signal as a wish to end well."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without uvicorn's raising them again at the end, which would kill us before we have tidied up."""
        loop = asyncio.get_running_loop()
        wanted = (signal.SIGINT, signal.SIGTERM)
        for number in wanted:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in wanted:
                loop.remove_signal_handler(number)


class _Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with our error body, and a way for a fault to close the connection."""

    def on_headers_complete(self) -> None:
        extensions: dict[str, Any] = {CLOSE: self.transport.close}
        self.scope["extensions"] = extensions
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP at all."""
        body = msgspec.json.encode(error_body(Why.MALFORMED.code, msg, system_random))
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
