"""Sealed requests as the side store keeps them: packed, filled up, opened by their own key and payment alone."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from terminal import side_store
from terminal.disk import REAL
from terminal.journal_chain import Mark, SealedRequest
from terminal.side_store import SLOT, Slots

KEY = bytes(range(SLOT))


def kept(request: SealedRequest, payment_id: str = "p1") -> tuple[Mark, bytes]:
    return Mark(0, side_store.digest(request.body)), side_store.sealed(AESGCM(KEY), payment_id, request)


hexadecimal = st.binary(max_size=200).map(lambda data: data.hex().encode())
bodies = st.lists(st.one_of(st.binary(max_size=60), hexadecimal, hexadecimal.map(bytes.upper)), max_size=6).map(
    b"".join
)


@given(bodies, st.text(max_size=20))
def test_every_body_comes_back_as_it_was(body, key_set_id):
    request = SealedRequest(key_set_id, body)
    mark, row = kept(request)
    assert side_store.opened(KEY, "p1", mark, row) == request
    assert len(row) % 256 == 0


def test_an_envelope_takes_little_more_than_its_bytes():
    body = b'{"format":"TR31-DATA","ciphertext":"%s","mode":"CBC"}' % os.urandom(600).hex().upper().encode()
    _, row = kept(SealedRequest("ks_1", body))
    assert len(row) == 768


@given(st.data())
def test_another_key_payment_or_digest_and_any_change_open_nothing(data):
    mark, row = kept(SealedRequest("ks_1", b"AB" * 40 + b"{}"))
    at, bit = data.draw(st.integers(0, len(row) - 1)), data.draw(st.integers(0, 7))
    changed = row[:at] + bytes([row[at] ^ 1 << bit]) + row[at + 1 :]
    assert side_store.opened(KEY, "p1", mark, changed) is None
    assert side_store.opened(bytes(SLOT), "p1", mark, row) is None
    assert side_store.opened(KEY[:-1], "p1", mark, row) is None
    assert side_store.opened(KEY, "p2", mark, row) is None
    assert side_store.opened(KEY, "p1", replace(mark, sha256="00" * 32), row) is None


@pytest.mark.parametrize("prepared", [True, False])
def test_the_key_that_seals_is_the_one_in_its_slot(tmp_path, prepared):
    slots = Slots(tmp_path / "keys", REAL, os.urandom)
    slots.open(())
    for number in range(3 * side_store.SLOTS):
        if prepared:
            slots.prepare()
        if number % 50 == 49:
            slots.settle()
        slot, cipher = slots.take()
        request = SealedRequest("ks_1", b"%d" % number)
        row = side_store.sealed(cipher, "p1", request)
        key = (tmp_path / "keys").read_bytes()[slot * SLOT :][:SLOT]
        assert side_store.opened(key, "p1", Mark(slot, side_store.digest(request.body)), row) == request
        slots.destroy(slot)
        assert (tmp_path / "keys").read_bytes()[slot * SLOT :][:SLOT] != key
