"""A provisioned home without a passphrase to type, and a log that is left as it was found."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terminal.crypto.kcv import aes_kcv
from terminal.crypto.vault import CredentialFile
from terminal.home import parse_document, provision

NOBODY = "http://127.0.0.1:9"
"""A host that does not answer: the discard port, on which nothing listens."""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TILL_HOME", "TILL_PASSPHRASE", "TILL_LOG", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    root = logging.getLogger()
    before, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.fixture
def document() -> dict[str, Any]:
    """What a simulator hands over for a device, with the fields that are not the terminal's."""
    zmk = os.urandom(32)
    return {
        "device_id": "POS-8F3A2C91",
        "terminal_id": "TID-004812",
        "identity": {"key_id": "idk_1", "secret": base64.b64encode(os.urandom(32)).decode()},
        "zmk": {"key": zmk.hex().upper(), "kcv": aes_kcv(zmk)},
        "merchant": {"client_id": "m", "client_secret": "s"},
    }


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """A credentials file."""
    path = tmp_path / "credentials"
    path.touch(mode=0o600)
    path.write_bytes(os.urandom(32))
    return path


@pytest.fixture
def home(tmp_path: Path, document: dict[str, Any], credentials: Path) -> Path:
    """A provisioned home."""
    path = tmp_path / "home"
    provision(
        path,
        parse_document(json.dumps(document).encode()),
        NOBODY,
        CredentialFile(credentials),
        random=os.urandom,
        credentials_file=credentials,
    )
    return path
