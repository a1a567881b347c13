"""A wire between a terminal and its host, on which a test listens. What it hears stays in memory."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

DEADLINE = 60.0


class Wire:
    """Carries bytes both ways between a port of its own and a host's; ``heard`` is all of them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = (parts.hostname or "", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._heard = bytearray()
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def heard(self) -> bytes:
        with self._news:
            return bytes(self._heard)

    def wait_for(self, words: bytes, times: int) -> None:
        """Until these words were heard so many times."""
        with self._news:
            assert self._news.wait_for(lambda: self._heard.count(words) >= times, DEADLINE)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # shut down
                return
            far = socket.create_connection(self._host)
            thread = threading.Thread(target=self._carry, args=(near, far))
            self._threads.append(thread)
            thread.start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pass_on, args=(far, near))
        back.start()
        self._pass_on(near, far)
        back.join()
        near.close()
        far.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                with self._news:
                    self._heard += data
                    self._news.notify_all()
                sink.sendall(data)
        except OSError:
            pass  # a process that was killed
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
