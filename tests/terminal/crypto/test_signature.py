from __future__ import annotations

import base64
import hashlib
import hmac
import inspect
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.crypto.signature import (
    Scheme,
    attestation_headers,
    attestation_message,
    header_value,
    hmac_sha256,
    nonce,
    parse_header_value,
    request_headers,
    request_message,
)

KEY = bytes(range(32))
FIELDS = ("TID-004812", "mac-7", "2025-12-13T14:25:30Z", "K7M3NPQRSTUVWXYZ234567AB")


def sign(message: bytes) -> bytes:
    return hmac_sha256(KEY, message)


def test_hmac_is_that_of_the_standard() -> None:
    """RFC 4231, test cases 1 and 2."""
    assert (
        hmac_sha256(b"\x0b" * 20, b"Hi There").hex()
        == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )
    assert (
        hmac_sha256(b"Jefe", b"what do ya want for nothing?").hex()
        == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_attestation_signs_four_lines_without_a_line_end_after_the_last() -> None:
    message = attestation_message("POS-8F3A2C91", "id-1", "2025-12-13T14:25:30Z", "ABCDEFGHIJKL")
    assert message == b"POS-8F3A2C91\nid-1\n2025-12-13T14:25:30Z\nABCDEFGHIJKL"


def test_a_request_signs_by_one_of_two_schemes() -> None:
    body = b'{"format":"TR31-DATA"}'
    assert request_message(Scheme.PREFIXED, *FIELDS, body) == "\n".join(FIELDS).encode() + b"\n" + body
    assert request_message(Scheme.PREFIXED, *FIELDS, b"") == "\n".join(FIELDS).encode() + b"\n"
    assert request_message(Scheme.BODY, *FIELDS, body) == body


def test_the_headers_of_an_attestation() -> None:
    headers = attestation_headers(
        sign, device_id="POS-8F3A2C91", key_id="id-1", timestamp="2025-12-13T14:25:30Z", nonce="ABCDEFGHIJKL"
    )
    message = b"POS-8F3A2C91\nid-1\n2025-12-13T14:25:30Z\nABCDEFGHIJKL"
    assert headers == {
        "X-Device-Id": "POS-8F3A2C91",
        "X-Key-Id": "id-1",
        "X-Timestamp": "2025-12-13T14:25:30Z",
        "X-Nonce": "ABCDEFGHIJKL",
        "X-Signature": "v1=" + base64.b64encode(hmac.new(KEY, message, hashlib.sha256).digest()).decode(),
    }


def test_the_headers_of_a_request() -> None:
    terminal_id, key_id, timestamp, once = FIELDS
    headers = request_headers(
        sign,
        scheme=Scheme.PREFIXED,
        terminal_id=terminal_id,
        key_id=key_id,
        timestamp=timestamp,
        nonce=once,
        body=b"x",
    )
    assert list(headers) == ["X-Terminal-Id", "X-Key-Id", "X-Timestamp", "X-Nonce", "X-Signature"]
    assert parse_header_value(headers["X-Signature"]) == sign("\n".join(FIELDS).encode() + b"\nx")


@pytest.mark.parametrize("scheme", Scheme)
def test_neither_scheme_binds_the_call_that_it_signs(scheme: Scheme) -> None:
    """What conformance says: method, path, charge id and idempotency key can be changed under a signature."""
    terminal_id, key_id, timestamp, once = FIELDS

    def request(method: str, path: str, idempotency_key: str) -> tuple[str, str, dict[str, str]]:
        signed = request_headers(
            sign,
            scheme=scheme,
            terminal_id=terminal_id,
            key_id=key_id,
            timestamp=timestamp,
            nonce=once,
            body=b'{"format":"TR31-DATA"}',
        )
        return method, path, {**signed, "Idempotency-Key": idempotency_key}

    requests = [
        request("POST", "/pos/charge", "key-1"),
        request("GET", "/pos/charge", "key-1"),
        request("POST", "/pos/charge/ch_1/refund", "key-1"),
        request("POST", "/pos/charge/ch_2/refund", "key-1"),
        request("POST", "/pos/charge/ch_2/refund", "key-2"),
    ]
    assert len({headers["X-Signature"] for _, _, headers in requests}) == 1
    taken = ["scheme", "terminal_id", "key_id", "timestamp", "nonce", "body"]
    assert list(inspect.signature(request_message).parameters) == taken


def test_under_the_scheme_body_every_cancel_has_the_same_signature() -> None:
    def cancel(scheme: Scheme, timestamp: str, once: str) -> bytes:
        return sign(request_message(scheme, "TID-004812", "mac-7", timestamp, once, b""))

    one = ("2025-12-13T14:25:30Z", "ABCDEFGHIJKLM")
    other = ("2025-12-14T09:00:00Z", "NOPQRSTUVWXYZ")
    assert cancel(Scheme.BODY, *one) == cancel(Scheme.BODY, *other)
    assert cancel(Scheme.PREFIXED, *one) != cancel(Scheme.PREFIXED, *other)


lines = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)


@given(st.tuples(lines, lines, lines, lines), st.tuples(lines, lines, lines, lines), st.binary(), st.binary())
def test_two_requests_that_differ_sign_different_bytes(
    a: tuple[str, str, str, str], b: tuple[str, str, str, str], body_a: bytes, body_b: bytes
) -> None:
    same = request_message(Scheme.PREFIXED, *a, body_a) == request_message(Scheme.PREFIXED, *b, body_b)
    assert same == ((a, body_a) == (b, body_b))


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("value", ["", "a\nb", "a\r", "é", "a\x00b", "a\x85b", "a\u2028b"])
@pytest.mark.parametrize("scheme", Scheme)
def test_a_field_that_is_not_one_line_is_not_signed(field: int, value: str, scheme: Scheme) -> None:
    one, two, three, four = [value if at == field else each for at, each in enumerate(FIELDS)]
    with pytest.raises(ValueError, match="one line"):
        request_message(scheme, one, two, three, four, b"")
    with pytest.raises(ValueError, match="one line"):
        attestation_message(one, two, three, four)


@given(st.binary(min_size=32, max_size=32))
def test_a_header_value_reads_back(mac: bytes) -> None:
    assert parse_header_value(header_value(mac)) == mac


GOOD = header_value(bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "v1=",
        GOOD[3:],
        GOOD.upper().replace("V1=", "V1="),
        "v2=" + GOOD[3:],
        " " + GOOD,
        GOOD + " ",
        GOOD + "\n",
        GOOD[:-1],
        GOOD + "=",
        header_value(bytes(31)),
        header_value(bytes(33)),
        GOOD[:-2] + "B=",  # the two bits that base64 leaves over
        "v1=é",
    ],
)
def test_a_header_value_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError):
        parse_header_value(text)


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda text: "v1=" + text))
def test_a_header_value_of_a_stranger_gives_32_bytes_or_a_value_error(text: str) -> None:
    try:
        mac = parse_header_value(text)
    except ValueError:
        return
    assert header_value(mac) == text


def test_a_nonce_is_alphanumeric_long_and_new() -> None:
    nonces = {nonce(os.urandom) for _ in range(200)}
    assert len(nonces) == 200
    assert all(re.fullmatch("[A-Z2-7]{24}", each) for each in nonces)


def test_a_nonce_uses_each_of_its_random_bits() -> None:
    """A bijection of fifteen bytes has no bias."""
    assert base64.b32decode(nonce(lambda n: bytes(range(n)))) == bytes(range(15))
