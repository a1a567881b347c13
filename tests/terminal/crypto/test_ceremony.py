from __future__ import annotations

import os
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.crypto.ceremony import Component, combine_components, confirm_component, parse_component
from terminal.crypto.kcv import aes_kcv
from terminal.errors import KeystoreError

key_bytes = st.binary(min_size=32, max_size=32).filter(any)


def with_kcv(value: bytes, length: int = 3) -> tuple[bytes, str]:
    return value, aes_kcv(value, length) if len(value) == 32 else "000000"


def added(*values: bytes) -> bytes:
    return reduce(lambda a, b: bytes(x ^ y for x, y in zip(a, b, strict=True)), values)


A, B = bytes(range(32)), bytes(range(100, 132))
C = bytes(range(200, 232))
WHOLE_2, WHOLE_3 = added(A, B), added(A, B, C)


@given(st.lists(key_bytes, min_size=2, max_size=3, unique=True), st.integers(3, 5))
def test_two_or_three_components_add_up_to_the_key(values: list[bytes], length: int) -> None:
    whole = added(*values)
    if not any(whole):
        return
    parts = [with_kcv(value, length) for value in values]
    assert combine_components(parts, aes_kcv(whole, length).lower()) == whole


@pytest.mark.parametrize(
    ("parts", "kcv", "message"),
    [
        ([], "000000", "two or three"),
        ([with_kcv(A)], aes_kcv(A), "two or three"),
        ([with_kcv(bytes([n] * 32)) for n in range(1, 5)], "000000", "two or three"),
        ([(A, "000000"), with_kcv(B)], aes_kcv(WHOLE_2), "component 1: its check value"),
        ([with_kcv(A), (B, aes_kcv(A))], aes_kcv(WHOLE_2), "component 2: its check value"),
        ([with_kcv(A), with_kcv(B), (C, "")], aes_kcv(WHOLE_3), "component 3: its check value"),
        ([with_kcv(A), (B, aes_kcv(B)[:4])], aes_kcv(WHOLE_2), "component 2: its check value"),
        ([with_kcv(A), with_kcv(A)], "000000", "component 2: it equals component 1"),
        ([with_kcv(A), with_kcv(B), with_kcv(A)], aes_kcv(B), "component 3: it equals component 1"),
        ([with_kcv(A), with_kcv(bytes(32))], aes_kcv(A), "component 2: it is all zeros"),
        ([with_kcv(A), with_kcv(B), with_kcv(WHOLE_2)], aes_kcv(bytes(32)), "add up to zero"),
        ([with_kcv(A[:16]), with_kcv(B[:16])], "000000", "component 1: it must have 32 bytes"),
        ([with_kcv(A), with_kcv(B[:31])], "000000", "component 2: it must have 32 bytes"),
        ([with_kcv(A), with_kcv(B + b"x")], "000000", "component 2: it must have 32 bytes"),
        ([with_kcv(A), with_kcv(B)], aes_kcv(WHOLE_3), "check value of the whole"),
        ([with_kcv(A), with_kcv(B)], "", "check value of the whole"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(parts: list[tuple[bytes, str]], kcv: str, message: str) -> None:
    with pytest.raises(KeystoreError, match=message) as caught:
        combine_components(parts, kcv)
    for value, _ in parts:
        assert not value or value.hex() not in str(caught.value).lower()


def test_a_typed_component_may_have_spaces_and_either_case() -> None:
    text = A.hex(" ", 4)
    typed = parse_component(1, text.upper() + "\n")
    assert confirm_component(1, typed, f" {aes_kcv(A).lower()} ") == Component(A, aes_kcv(A).lower())


@pytest.mark.parametrize(
    "text", ["", "zz" * 32, A.hex()[:-1], A.hex()[:-2], A.hex() + "00", "é" * 64, "0x" + A.hex()]
)
def test_a_typed_component_that_cannot_be_one_is_refused_by_number(text: str) -> None:
    with pytest.raises(KeystoreError, match="component 2: it must"):
        parse_component(2, text)


@given(st.text(max_size=80), st.text(max_size=12))
def test_whatever_is_typed_is_a_component_or_a_typed_error(text: str, kcv: str) -> None:
    with pytest.raises(KeystoreError):
        confirm_component(1, parse_component(1, text), kcv)


def test_a_component_shows_its_check_value_alone() -> None:
    component = Component(os.urandom(32), "A1B2C3")
    assert repr(component) == "Component(kcv='A1B2C3')"
    assert str(component) == repr(component)


def test_a_component_that_was_typed_before_is_refused_at_once() -> None:
    earlier = [Component(B, aes_kcv(B)), Component(A, aes_kcv(A))]
    with pytest.raises(KeystoreError, match="component 3: it equals component 2"):
        parse_component(3, A.hex(), earlier)
    assert parse_component(3, C.hex(), earlier).value == C
