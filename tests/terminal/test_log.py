from __future__ import annotations

import io
import json
import logging
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.pan import luhn_digit
from terminal import log
from terminal.errors import KeystoreError, SettingsError

PAN = "4761739001010119"
KEY = "0F1E2D3C4B5A69788796A5B4C3D2E1F00F1E2D3C4B5A69788796A5B4C3D2E1F0"
BASE64 = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as it is written."""
    root = logging.getLogger()
    level, raising = root.level, logging.raiseExceptions
    stream = io.StringIO()
    handler = log.to_stream(stream)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"card {PAN} read", PAN),
        (f"card {PAN}D28122010000012345", PAN),
        (f";{PAN}=28122010000012345?", PAN),
        ("4761 7390 0101 0119", "7390 0101"),
        ("4761-7390-0101-0119", "7390-0101"),
        (f"99{PAN}99", PAN),
        (f"{PAN * 2}", PAN),
        (f"key {KEY}", KEY),
        (f"key {KEY.lower()}", KEY.lower()),
        (f"secret={BASE64}", BASE64),
        ("Authorization: Attestation att_abc-DEF.123~x", "abc-DEF"),
        ("token att_9f8e7d", "9f8e7d"),
        ("Authorization: Bearer eyJhbGciOi.J9.sig-_x", "eyJhbGciOi"),
        ("(b'X-Signature', b'v1=q83vEjRWeJA=')", "q83vEjRWeJA"),
        ("X-Signature: v1=q83vEjRWeJA=", "q83vEjRWeJA"),
        (f"signed v1={BASE64}", BASE64),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, secret: str) -> None:
    assert secret not in log.redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "EUR 12.50 approved, charge ch_abc123def456, KCV 0F1E2D",
        "2025-12-13T14:25:30Z",
        "order 4761739001010118",  # the check digit is wrong: no PAN
        "/usr/lib/python3/dist-packages/terminal/crypto/keyblock.py",
        "POST http://127.0.0.1:8080/pos/charge/ch_abc123def456/refund",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert log.redact(text) == text


@given(st.text("0123456789", min_size=12, max_size=18), st.sampled_from(["", " ", "x", "=", "D", '"', "\n", "/"]))
def test_no_pan_gets_through(payload: str, edge: str) -> None:
    pan = payload + luhn_digit(payload)
    assert pan not in log.redact(f"a{edge}{pan}{edge}b")


@given(st.binary(min_size=16, max_size=64), st.text(max_size=20))
def test_no_key_gets_through_as_hex(key: bytes, around: str) -> None:
    assert key.hex() not in log.redact(f"{around}\n{key.hex()}\n{around}")


@given(st.text())
def test_any_text_can_be_redacted(text: str) -> None:
    assert isinstance(log.redact(text), str)


def test_a_record_is_a_line_of_json(lines: io.StringIO) -> None:
    logging.getLogger("terminal.x").warning("read %s\nagain", PAN)
    (line,) = lines.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == (
        "warning",
        "terminal.x",
        "read 476173******0119\nagain",
    )


def test_the_arguments_of_the_http_library_are_left_out(lines: io.StringIO) -> None:
    logging.getLogger("httpcore.http11").debug(
        "receive_response_headers.complete return_value=(b'HTTP/1.1', 200, [(b'Set-Cookie', b'canary')])"
    )
    assert json.loads(lines.getvalue())["message"] == "receive_response_headers.complete"


def test_asyncio_tells_what_and_never_with_what(lines: io.StringIO) -> None:
    logger = logging.getLogger("asyncio")
    logger.warning("Executing %s took %.3f seconds", "<Task exception=ValueError('canary')>", 0.1)
    logger.error("Exception in callback Link.feed(b'canary')\nhandle: <Handle Link.feed(b'canary')>")
    assert [json.loads(line)["message"] for line in lines.getvalue().splitlines()] == [
        "Executing",
        "Exception in callback Link.feed",
    ]


LAST_RESORT = """
import gc, logging, threading
from terminal import log
log.guard_last_resort()
log.guard_last_resort()
canary = "canary " + "horse"
class Ends:
    def __del__(self): raise ValueError(canary)
def fails(): raise ValueError(canary)
try: fails()
except ValueError: logging.getLogger("x").exception("card %s", "4761739001010119")
Ends()
thread = threading.Thread(target=fails)
thread.start()
thread.join()
"""


def test_what_python_prints_by_itself_is_fit_to_be_read() -> None:
    said = subprocess.run([sys.executable, "-c", LAST_RESORT], capture_output=True, text=True, check=True).stderr
    assert said.count("ValueError\n") == 3
    assert said.count("in fails") == 2
    assert "476173******0119" in said
    assert "canary horse" not in said


def test_a_traceback_shows_frames_and_our_own_words_only(lines: io.StringIO) -> None:
    def fails(canary: str) -> None:
        raise ValueError(f"bad {canary}")

    try:
        try:
            fails("canary-horse")
        except ValueError:
            raise KeystoreError("the keystore does not open") from None
    except KeystoreError:
        logging.getLogger("x").exception("it failed")
    try:
        try:
            fails("canary-horse")
        except ValueError as error:
            raise KeystoreError("the keystore does not open") from error
    except KeystoreError:
        logging.getLogger("x").exception("it failed")
    first, second = (json.loads(line)["trace"] for line in lines.getvalue().splitlines())
    assert "canary-horse" not in lines.getvalue().replace('fails(\\"canary-horse\\")', "")
    assert "KeystoreError: the keystore does not open" in first
    assert "ValueError" not in first
    assert "ValueError\nwhich led to:\n" in second


def test_a_file_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "till.log"
    path.write_text("before\n")
    path.unlink()
    root = logging.getLogger()
    level, raising = root.level, logging.raiseExceptions
    handler = log.to_file(path)
    try:
        logging.getLogger("x").error("card %s", PAN)
    finally:
        root.removeHandler(handler)
        handler.close()
        root.setLevel(level)
        logging.raiseExceptions = raising
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["message"] == "card 476173******0119"


def test_a_file_that_cannot_be_written_is_a_setting_at_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be written"):
        log.to_file(tmp_path / "no" / "such" / "folder")
