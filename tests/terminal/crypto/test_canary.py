"""Canaries: secrets that are easy to find again, put through everything that can fail."""

from __future__ import annotations

import base64
import io
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from terminal.crypto.ceremony import Component, combine_components, confirm_component, parse_component
from terminal.crypto.envelope import encode, open_envelope, open_stream, seal
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.keystore import Keystore, Role, WrappedKey
from terminal.crypto.pinblock import iso4_pin, iso4_pin_block
from terminal.crypto.vault import CredentialFile, Passphrase, Secret, Vault
from terminal.errors import TillError
from tests.terminal.crypto.key_sets import DAY, NOW, HostKeys

KEY = b"Canary-key-that-sings-32-bytes!!"
ZMK = b"Canary-zmk-that-sings-32-bytes!!"
IDENTITY = b"Canary-identity-secret-32-bytes!"
CREDENTIAL = b"Canary-credential-at-rest-32byte"
PASSPHRASE = "Canary passphrase, quite long"
PAN = "4761739001010119"
PIN = "907182635417"
PLAINTEXT = b'{"pan":"Canary plaintext"}'

CANARIES = [KEY, ZMK, IDENTITY, CREDENTIAL, PASSPHRASE.encode(), PAN.encode(), PIN.encode(), PLAINTEXT]


def spellings(secret: bytes) -> list[str]:
    """In clear, in hex, and the middle of its base64 at each of the three ways in which bytes fall into it."""
    shifted = [base64.b64encode(bytes(n) + secret).decode()[4:-4] for n in range(3)]
    text = secret.decode()
    return [text.lower(), secret.hex(), *(each.lower() for each in shifted), repr(text)[1:-1].lower()]


def assert_silent(written: str) -> None:
    lower = written.lower()
    found = [spelling for secret in CANARIES for spelling in spellings(secret) if spelling in lower]
    assert not found


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(log: io.StringIO) -> Iterator[logging.Logger]:
    """All that any module logs, at DEBUG, with tracebacks in full."""
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    yield root
    root.setLevel(level)
    root.removeHandler(handler)


def raised(what: Callable[[], object], logger: logging.Logger) -> TillError:
    try:
        what()
    except TillError as error:
        logger.exception("failed: %r %s", error, error.advice)
        logger.debug("%s", "".join(traceback.format_exception(error, chain=True)))
        return error
    raise AssertionError("nothing was raised")


def with_locals(error: TillError) -> str:
    """The traceback with the locals of each frame but the test's own, as an error reporter would send it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    if frames is None:
        return ""
    shown = traceback.TracebackException(type(error), error, frames, capture_locals=True)
    return "".join(shown.format(chain=True))


def test_the_search_finds_what_it_looks_for() -> None:
    for secret in CANARIES:
        for written in (
            f"x{secret!r}x",
            f"x{secret.hex().upper()}x",
            *(base64.b64encode(b"x" * n + secret + b"xx").decode() for n in range(3)),
        ):
            with pytest.raises(AssertionError):
                assert_silent(written)


@pytest.fixture
def host() -> HostKeys:
    keys = HostKeys(ZMK)
    keys.keys[Role.MSK] = KEY
    return keys


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    (tmp_path / "credential").write_bytes(CREDENTIAL)
    (tmp_path / "credential").chmod(0o400)
    return CredentialFile(tmp_path / "credential")


def provision(keystore: Keystore, vault: Vault, **changes: Any) -> None:
    document: dict[str, Any] = {
        "device_id": "POS-8F3A2C91",
        "terminal_id": "TID-004812",
        "identity_key_id": "id-1",
        "identity_secret": IDENTITY,
        "zmk": ZMK,
        "zmk_kcv": aes_kcv(ZMK),
        **changes,
    }
    with vault.change() as draft:
        keystore.provision(draft, **document)


def test_a_failing_keystore_sings_no_canary_even_with_locals(
    tmp_path: Path, secret: Secret, host: HostKeys, log: io.StringIO, logger: logging.Logger
) -> None:
    path = tmp_path / "vault"
    with Vault.create(path, secret, random=os.urandom) as vault:
        keystore = Keystore(vault, os.urandom)
        provision(keystore, vault)

        def install(now: datetime = NOW, **keys: WrappedKey) -> None:
            with vault.change() as draft:
                keystore.install(draft, host.answer("ks-2", **keys), now)

        with vault.change() as draft:
            keystore.install(draft, host.answer(), NOW)
        good = encode(seal(KEY, PLAINTEXT, os.urandom))
        twin = HostKeys(ZMK)
        twin.keys |= {**host.keys, Role.TDK: KEY}

        errors = [
            raised(lambda: keystore.open(good, limit=3), logger),
            raised(lambda: keystore.open(good[:-9], limit=99), logger),
            raised(
                lambda: keystore.open(good.replace(b'CBC"', b'CBC","content_encoding":"gzip"'), limit=99), logger
            ),
            raised(lambda: keystore.open(good, limit=99, key_set_id="ks-9"), logger),
            raised(lambda: keystore.pin_block(PIN + "9" * 9, PAN), logger),
            raised(lambda: keystore.pin_block(PIN, PAN + "9999"), logger),
            raised(lambda: provision(keystore, vault, zmk=ZMK + b"x"), logger),
            raised(lambda: provision(keystore, vault, zmk_kcv="000000"), logger),
            raised(lambda: provision(keystore, vault, zmk_kcv=None), logger),
            raised(lambda: provision(keystore, vault, identity_secret=IDENTITY * 9), logger),
            raised(lambda: provision(keystore, vault, device_id=""), logger),
            raised(lambda: install(msk=host.wrapped(Role.MSK, kcv="000000")), logger),
            raised(lambda: install(msk=host.wrapped(Role.MSK, kcv=None)), logger),
            raised(lambda: install(msk=host.wrapped(Role.MSK, under=Role.TMK)), logger),
            raised(lambda: install(msk=host.wrapped(Role.MSK, key_block="D0144")), logger),
            raised(lambda: install(msk=host.wrapped(Role.MSK, key_block=KEY.hex())), logger),
            raised(lambda: install(tdk=twin.wrapped(Role.TDK)), logger),
            raised(lambda: install(tpk=host.wrapped(Role.MSK)), logger),
            raised(lambda: install(NOW + 9 * DAY), logger),
        ]
        shown = [keystore, vault, secret, keystore.facts(), vault.facts, host.answer()]
        errors.append(raised(lambda: Vault.open(path, secret, random=os.urandom), logger))
        pin_errors = errors[4:6]
        written = "".join(with_locals(error) for error in errors if error not in pin_errors)
    assert "Traceback" in log.getvalue()
    assert "self = <Keystore>" in written
    assert_silent(log.getvalue() + repr(shown) + written)


def test_a_failing_vault_sings_no_canary_even_with_locals(
    tmp_path: Path, secret: Secret, log: io.StringIO, logger: logging.Logger
) -> None:
    path = tmp_path / "vault"
    passphrase = Passphrase(PASSPHRASE, n=2**10)
    with Vault.create(path, Passphrase("another", n=2**10), random=os.urandom) as vault, vault.change() as draft:
        draft.records["zmk"] = ZMK

    def unwritable() -> None:
        with Vault.open(path, Passphrase("another"), random=os.urandom) as vault:
            path.with_name("vault.new").mkdir()
            with vault.change() as draft:
                draft.records["zmk"] = KEY

    def small() -> None:
        (tmp_path / "credential").chmod(0o600)
        (tmp_path / "credential").write_bytes(CREDENTIAL[:31])
        Vault.create(tmp_path / "small", secret, random=os.urandom)

    errors = [
        raised(lambda: Vault.open(path, passphrase, random=os.urandom), logger),
        raised(lambda: Vault.open(path, secret, random=os.urandom), logger),
        raised(lambda: Vault.create(path, passphrase, random=os.urandom), logger),
        raised(unwritable, logger),
        raised(small, logger),
    ]
    path.with_name("vault.new").rmdir()
    path.write_bytes(path.read_bytes()[:-20])
    errors.append(raised(lambda: Vault.open(path, Passphrase("another"), random=os.urandom), logger))
    written = "".join(map(with_locals, errors))
    assert "passphrase or credential is another" in log.getvalue()
    assert "secret = <Passphrase>" in written
    assert_silent(log.getvalue() + written + repr([passphrase, secret, vault]))


def test_a_failing_ceremony_sings_no_canary_even_with_locals(log: io.StringIO, logger: logging.Logger) -> None:
    good, other = Component(ZMK, aes_kcv(ZMK)), Component(KEY, aes_kcv(KEY))
    errors = [
        raised(lambda: combine_components([good, good], "000000"), logger),
        raised(lambda: combine_components([good], "000000"), logger),
        raised(lambda: combine_components([good, (KEY, "000000")], "000000"), logger),
        raised(lambda: combine_components([(ZMK, aes_kcv(ZMK)), other], "000000"), logger),
        raised(lambda: combine_components([good, (KEY[:31], "000000")], "000000"), logger),
        raised(lambda: confirm_component(1, parse_component(1, ZMK.hex()), "000000"), logger),
        raised(lambda: parse_component(1, ZMK.hex() + "0"), logger),
        raised(lambda: parse_component(1, ZMK.hex() + "00"), logger),
    ]
    written = "".join(map(with_locals, errors))
    assert "component = Component(kcv=" in written
    assert_silent(log.getvalue() + repr([good, other]) + written)


def test_the_primitives_say_nothing_in_their_messages(log: io.StringIO, logger: logging.Logger) -> None:
    """They are handed keys and plaintext, so their locals hold them: the keystore keeps those frames to itself."""
    body = encode(seal(KEY, PLAINTEXT, os.urandom, compress=True))
    raised(lambda: open_envelope(KEY, body, limit=3), logger)
    raised(lambda: open_envelope(KEY, body[:-1], limit=99), logger)
    raised(lambda: open_envelope(KEY, encode(seal(ZMK, PLAINTEXT, os.urandom)), limit=3), logger)
    raised(lambda: list(open_stream(KEY, body, limit=3)), logger)
    raised(lambda: iso4_pin_block(KEY, PIN * 3, PAN, os.urandom), logger)
    raised(lambda: iso4_pin_block(KEY, PIN, PAN * 2, os.urandom), logger)
    raised(lambda: iso4_pin(KEY, bytes(16), PAN), logger)
    raised(lambda: iso4_pin(KEY, bytes(15), PAN), logger)
    assert_silent(log.getvalue())
