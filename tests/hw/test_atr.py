"""Answers to reset: published ones, malformed ones, and the parameters and requests that follow from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.atr import Atr, Group, check_pps, parameters, parse_atr, pps
from hw.errors import CardError


def atr(text: str) -> Atr:
    return parse_atr(bytes.fromhex(text))


def test_the_basic_answers_of_emv() -> None:
    t0 = atr("3B 60 00 00")
    assert (t0.protocols, t0.choose(), t0.historical, t0.inverse) == ((0,), 0, b"", False)
    t1 = atr("3B E0 00 00 81 31 FE 45 EB")
    assert (t1.protocols, t1.choose(), t1.ifsc, t1.bwi_cwi, t1.crc) == ((1,), 1, 254, 0x45, False)
    assert t1.groups == (Group(tb=0, tc=0, td=0x81), Group(td=0x31), Group(ta=0xFE, tb=0x45))


@pytest.mark.parametrize(
    ("text", "protocols", "historical"),
    [
        ("3B 80 81 31 FE 45 8B", (1,), ""),
        ("3B 68 00 00 00 73 C8 40 13 00 90 00", (0,), "0073C84013009000"),  # many bank cards
        ("3B E9 00 FF 81 31 FE 45 43 4C 61 69 72 65 33 20 36 28", (1,), "434C61697265332036"),  # a Mastercard
        ("3B 2A 00 80 65 24 B0 00 02 00 82 90 00", (0,), "806524B0000200829000"),  # ACS's example, whole
    ],
)
def test_published_answers(text: str, protocols: tuple[int, ...], historical: str) -> None:
    found = atr(text)
    assert (found.protocols, found.historical.hex().upper()) == (protocols, historical)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has 0 bytes"),
        ("3B", "has 1 bytes"),
        ("3B" + "00" * 33, "has 34 bytes"),
        ("03 60 00 00", "begins with 03h"),
        ("3B 60 00", "breaks off"),
        ("3B 60 00 00 00", "has 5 bytes and should have 4"),
        ("3B 2A 00 80 65 24 B0 00 02 00 82", "should have 13"),  # printed so in one place, two bytes short
        ("3B E0 00 00 81 31 FE 45 EA", "fails its check"),
        ("3B E0 00 00 81 31 FE 45", "should have 9"),
    ],
)
def test_what_is_no_answer_to_reset(text: str, why: str) -> None:
    with pytest.raises(CardError, match=why) as caught:
        atr(text)
    assert "Insert the card again" in caught.value.advice


def test_the_parameters_that_pcscd_sets_for_the_same_cards() -> None:
    assert parameters(atr("3B600000"), 0).hex() == "1100000a00"
    assert parameters(atr("3BE000008131FE45EB"), 1).hex() == "1110004500fe00"


def test_inverse_convention_guard_time_and_specific_mode_reach_the_reader() -> None:
    inverse = atr("3F 40 FF")
    assert parameters(inverse, 0).hex() == "1102ff0a00"
    specific = atr("3B 90 13 10 00")  # TA1 = 13, TD1 = 10, TA2 = 00
    assert (specific.specific, specific.keeps_default_speed) == (0, False)
    assert parameters(specific, 0)[0] == 0x13
    disregarded = atr("3B 90 13 10 10")
    assert parameters(disregarded, 0)[0] == 0x11
    negotiable = atr("3B 10 13")
    assert (negotiable.speed, parameters(negotiable, 0)[0]) == (0x13, 0x11)


def test_waiting_integers_and_the_check_of_blocks() -> None:
    assert atr("3B 80 40 0B").wi == 11
    crc = bytes.fromhex("3B 80 81 41 01".replace(" ", ""))
    check = 0
    for byte in crc[1:]:
        check ^= byte
    assert parse_atr(crc + bytes((check,))).crc
    assert atr("3B 80 01 81").ifsc == 32


def test_the_protocol_is_the_card_s_first_or_the_one_that_is_named() -> None:
    both = atr("3B 80 80 01 01")
    assert both.protocols == (0, 1)
    assert (both.choose(), both.choose(0), both.choose(1)) == (0, 0, 1)
    with pytest.raises(CardError, match="does not speak T=1"):
        atr("3B600000").choose(1)
    with pytest.raises(CardError, match="neither T=0 nor T=1"):
        atr("3B 80 0E 8E").choose()


def test_requests_for_a_protocol() -> None:
    assert pps(0, 0x94).hex() == "ff10947b"
    assert pps(1).hex() == "ff01fe"
    assert pps(1, 0x13).hex() == "ff1113fd"
    check_pps(pps(1), bytes.fromhex("ff01fe"))
    for answer in ("ff00ff", "", "ff01"):
        with pytest.raises(CardError, match="does not take the protocol"):
            check_pps(pps(1), bytes.fromhex(answer))


@given(st.binary(max_size=40) | st.binary(max_size=38).map(lambda data: b"\x3b" + data))
def test_any_bytes_are_an_answer_to_reset_or_a_card_error(data: bytes) -> None:
    try:
        found = parse_atr(data)
    except CardError:
        return
    for protocol in found.protocols:
        if protocol in (0, 1) and found.specific in (None, protocol):
            assert found.choose(protocol) == protocol
            assert len(parameters(found, protocol)) == (7 if protocol else 5)
    assert 1 <= found.ifsc <= 254
