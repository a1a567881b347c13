"""A host as a process of its own, and `till` as a person would run it, for the end-to-end tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from terminal import home as terminal_home
from terminal.clock import system_random
from terminal.crypto.vault import CredentialFile

TILL = [sys.executable, "-m", "terminal.cli.entry"]
DEADLINE = 60.0


@contextmanager
def host(data: Path, *words: str) -> Iterator[str]:
    """`till host` on a port of its own choice; yields its URL."""
    command = [*TILL, "host", "--listen", "127.0.0.1:0", "--data", str(data), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().removeprefix("listening on ")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(DEADLINE)


def call(url: str, document: Any = None, **headers: str) -> Any:
    """A JSON call; a POST where there is a document."""
    data = None if document is None else json.dumps(document).encode()
    with urlopen(Request(url, data=data, headers=headers), timeout=DEADLINE) as answer:
        return json.load(answer)


def claim(url: str, device: dict[str, Any], code: str) -> None:
    """The merchant types the code into the portal."""
    token = call(f"{url}/client/session", device["merchant"] | {"grant_type": "client_credentials"})["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    call(f"{url}/session/initiate", {"host": "merchant.viopay.io"}, **bearer)
    call(f"{url}/pos/claim", {"pairing_code": code}, **bearer)


def pair_beforehand(url: str, device: dict[str, Any]) -> None:
    """Claim the device before its terminal is started for the first time."""
    agent = {"User-Agent": "Viopay-POS/0.1.0 (Linux; test)", "X-Client-Type": "pos"}
    agent["X-Device-Id"] = device["device_id"]
    call(f"{url}/pos/bootstrap", {}, **agent)
    code = call(f"{url}/pos/pairing-code", {}, **agent)["pairing_code"]
    claim(url, device, code)


def provisioned(url: str, home: Path) -> dict[str, Any]:
    """A device of the host and a home for it, which a credentials file opens; the device document."""
    device: dict[str, Any] = call(f"{url}/sim/devices", {})
    home.mkdir(parents=True)
    credentials = home / "credentials"
    credentials.touch(mode=0o600)
    credentials.write_bytes(os.urandom(32))
    terminal_home.provision(
        home,
        terminal_home.parse_document(json.dumps(device).encode()),
        url,
        CredentialFile(credentials),
        random=system_random,
        credentials_file=credentials,
    )
    return device


@dataclass
class Home:
    """A terminal's home, and the commands that are run in it."""

    path: Path
    url: str

    def run(self, *words: str, stdin: str = "", code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must be this exit code."""
        done = subprocess.run(
            [*TILL, "--home", str(self.path), *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env=os.environ | env,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def told(self, *words: str, stdin: str = "", code: int = 0) -> list[dict[str, Any]]:
        """The objects that a command says under --json."""
        return [json.loads(line) for line in self.run(*words, "--json", stdin=stdin, code=code).stdout.splitlines()]

    def pay(self, *words: str, stdin: str = "", code: int = 0) -> dict[str, Any]:
        """The payment that a command ends with."""
        payment: dict[str, Any] = self.told(*words, stdin=stdin, code=code)[-1]["payment"]
        return payment

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that is read from while it runs."""
        command = [*TILL, "--json", "--home", str(self.path), *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


def said(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read on until the process says this event."""
    assert process.stdout is not None
    assert process.stderr is not None
    heard = []
    for line in process.stdout:
        heard.append(line)
        told: dict[str, Any] = json.loads(line)
        if told["event"] == event:
            return told
    raise AssertionError(f"{event!r} was never said, but this:\n{''.join(heard)}{process.stderr.read()}")
