"""``till host`` as a process, over a real socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from sim.cli.host import host

START = "from sim.cli.host import host; host()"


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert found, (line, process.stderr.read() if process.stderr else "")
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_and_ends_well(number: int) -> None:
    with running("--seed", "7") as (process, url):
        assert httpx.get(f"{url}/health/live").json()["service"] == "vi-backoffice-api"
        made = httpx.post(f"{url}/sim/devices", json={})
        assert made.status_code == 201
        with httpx.Client() as kept_alive:
            kept_alive.get(f"{url}/health/live")
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    (directory,) = re.findall(r"the ledger is in (\S+) ", err)
    assert not Path(directory).exists()
    assert "Traceback" not in err


def test_a_ledger_that_outlives_a_sigkill(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running("--data", str(data)) as (process, url):
        device = httpx.post(f"{url}/sim/devices", json={}).json()
        process.kill()
        process.communicate()
    with running("--data", str(data)) as (_, url):
        shown = httpx.get(f"{url}/sim/devices/{device['device_id']}").json()
        assert shown["terminal_id"] == device["terminal_id"]
        second = CliRunner().invoke(host, ["--data", str(data)])
        assert second.exit_code == 1
        assert "in use by another host\nEnd that host" in second.output
    assert os.stat(data).st_mode & 0o777 == 0o700


def test_faults_on_a_real_connection() -> None:
    with running() as (_, url):

        def under(rule: dict[str, Any]) -> Any:
            httpx.post(f"{url}/sim/faults", json={"rules": [rule]}).raise_for_status()
            return httpx.get(f"{url}/health/live")

        for word in ("drop_request", "drop_answer"):
            with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
                under({"do": word})
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            under({"do": "cut"})
        assert under({"do": "status", "status": 503}).status_code == 503
        httpx.delete(f"{url}/sim/faults")
        assert httpx.get(f"{url}/health/live").status_code == 200


def test_what_is_not_http_gets_the_error_body() -> None:
    with running() as (_, url):
        name, port = url.removeprefix("http://").split(":")
        with socket.create_connection((name, int(port)), timeout=10) as connection:
            connection.sendall(b"\x16\x03\x01 this is a TLS hello\r\n\r\n")
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"4000"' in body


def test_rules_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[rules]]\ndo = "html"\n')
    with running("--faults", str(path)) as (_, url):
        assert httpx.get(f"{url}/health/live").text.startswith("<!DOCTYPE")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:99999", ":0"])
def test_an_address_that_is_none(listen: str) -> None:
    result = CliRunner().invoke(host, ["--listen", listen])
    assert result.exit_code == 2
    assert "HOST:PORT" in result.output


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(host, ["--listen", f"127.0.0.1:{taken.getsockname()[1]}"])
        assert result.exit_code == 1
        assert "Address already in use\n`--listen 127.0.0.1:0`" in result.output


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("")
    result = CliRunner().invoke(host, ["--data", str(file / "below")])
    assert result.exit_code == 1
    assert f"cannot use {file / 'below'}: " in result.output


def test_a_fault_file_with_a_typo(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('{"rules": [{"do": "dealy", "seconds": 1}]}')
    result = CliRunner().invoke(host, ["--faults", str(path)])
    assert result.exit_code == 1
    assert f"{path}: faults: rules[0].do: 'dealy' is unknown (one of " in result.output
