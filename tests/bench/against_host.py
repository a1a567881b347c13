"""The simulated host in a process of its own, and who talks to it in the bench."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hmac import digest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from Crypto.Cipher import AES
from Crypto.Util.Padding import pad, unpad

from terminal import home, settings
from terminal.clock import system_random
from terminal.crypto.vault import CredentialFile
from terminal.events import PairingCodeShown
from terminal.terminal import Terminal
from tests.e2e import second_client
from tests.e2e.second_client import Wire

PAN, EXPIRY, MASKED_PAN = second_client.PAN, second_client.EXPIRY, second_client.MASKED_PAN


@contextmanager
def simulator(folder: Path) -> Iterator[Wire]:
    """The host, as ``till host`` runs it, with its ledger in ``folder``."""
    words = ("-m", "terminal.cli.entry", "host", "--listen", "127.0.0.1:0", "--data", str(folder))
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = urlsplit(process.stdout.readline().strip().removeprefix("listening on "))
            assert url.hostname, "the host did not start"
            assert url.port, "the host did not start"
            yield Wire(url.hostname, url.port)
        finally:
            process.terminate()


def url_of(wire: Wire) -> str:
    """Where it listens."""
    return f"http://{wire.host}:{wire.port}"


def provision(wire: Wire, folder: Path) -> tuple[second_client.BackOffice, settings.Settings]:
    """A home for a terminal of ours, its vault opened by a credentials file, and the merchant who will claim it."""
    document = second_client.provision(wire).document
    folder.mkdir()
    credentials = folder / "credentials"
    credentials.touch(mode=0o600)
    credentials.write_bytes(os.urandom(32))
    parsed = home.parse_document(json.dumps(document).encode())
    home.provision(
        folder / "home",
        parsed,
        url_of(wire),
        CredentialFile(credentials),
        random=system_random,
        credentials_file=credentials,
    )
    merchant = second_client.BackOffice(
        wire, document["merchant"]["client_id"], document["merchant"]["client_secret"]
    )
    merchant.login()
    merchant.initiate()
    return merchant, settings.load(folder / "home")


async def activate(till: Terminal, merchant: second_client.BackOffice) -> None:
    """Bring a terminal of ours to its last level; the merchant claims it when its code appears."""

    async def claim() -> None:
        async for event in till.events():
            if isinstance(event, PairingCodeShown):
                merchant.claim(event.pairing_code).ok()
                return

    claiming = asyncio.create_task(claim())
    await asyncio.sleep(0)
    await till.activate()
    await claiming


class RequestsTerminal:
    """A charge as one writes it with ``requests``, pycryptodome and the standard library: no journal, no types.

    A ``requests.Session`` looks for proxies and passwords in the environment on every request. ``lean`` tells it
    not to, as our own client never does.
    """

    def __init__(self, device: second_client.Terminal, *, lean: bool = False) -> None:
        self._url = url_of(device.wire) + "/pos/charge"
        self._terminal_id, keys = device.terminal_id, device.keys
        self._msk, self._tdk, self._mac = keys["msk"].value, keys["tdk"].value, keys["mac"].value
        self._tdk_kcv, self._mac_key_id = keys["tdk"].kcv, keys["mac"].key_id
        self.session = requests.Session()
        self.session.trust_env = not lean
        self.session.headers.update({"User-Agent": second_client.USER_AGENT, "X-Client-Type": "pos"})

    def charge(self, minor: int, currency: str, reference: str) -> dict[str, Any]:
        """The host's answer, held to what was asked."""
        request = {
            "amount": {"value": str(minor), "currency": currency},
            "entry_mode": "manual",
            "reference": reference,
            "card": {
                "masked_pan": MASKED_PAN,
                "expiry": EXPIRY,
                "pan": {**seal(self._tdk, PAN.encode()), "key_kcv": self._tdk_kcv},
            },
        }
        body = json.dumps(seal(self._msk, json.dumps(request).encode())).encode()
        timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        nonce = secrets.token_hex(12)
        signed = f"{self._terminal_id}\n{self._mac_key_id}\n{timestamp}\n{nonce}\n".encode() + body
        response = self.session.post(
            self._url,
            data=body,
            headers={
                "Content-Type": "application/json",
                "Idempotency-Key": secrets.token_hex(16),
                "X-Terminal-Id": self._terminal_id,
                "X-Key-Id": self._mac_key_id,
                "X-Timestamp": timestamp,
                "X-Nonce": nonce,
                "X-Signature": "v1=" + b64encode(digest(self._mac, signed, "sha256")).decode(),
            },
            timeout=(5, 15),
        )
        response.raise_for_status()
        answer: dict[str, Any] = json.loads(unseal(self._msk, response.json()))
        assert answer["status"] == "approved", answer
        assert answer["amount"] == request["amount"], answer
        assert answer["reference"] == reference, answer
        return answer


def seal(key: bytes, plaintext: bytes) -> dict[str, str]:
    """An envelope, by pycryptodome."""
    iv = os.urandom(16)
    ciphertext = AES.new(key, AES.MODE_CBC, iv).encrypt(pad(plaintext, 16))
    return {
        "format": "TR31-DATA",
        "ciphertext": ciphertext.hex().upper(),
        "initialization_vector": iv.hex().upper(),
        "mode": "CBC",
    }


def unseal(key: bytes, sealed: dict[str, str]) -> bytes:
    """What is in one."""
    cipher = AES.new(key, AES.MODE_CBC, bytes.fromhex(sealed["initialization_vector"]))
    return bytes(unpad(cipher.decrypt(bytes.fromhex(sealed["ciphertext"])), 16))


def signed_charge(device: second_client.Terminal) -> tuple[dict[str, str], bytes]:
    """Headers and body of a charge, ready to be sent: what remains is HTTP alone."""
    body = device.seal(device.charge_request("1250", entry_mode="manual"))
    return device.hmac_headers(body, idempotency_key=secrets.token_hex(16)), body
