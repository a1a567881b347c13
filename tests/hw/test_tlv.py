"""BER-TLV, with a card's real answer and with anything whatever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.errors import CardError
from hw.tlv import Tlv, encode, find, parse, parse_dol, tag_bytes, template, walk

# Answer to SELECT PPSE of a Maestro card, published in forum.arduino.cc t/484732.
PPSE = bytes.fromhex(
    "6f2c840e325041592e5359532e4444463031a51abf0c1761154f07a00000000430608701015007" + b"MAESTRO".hex()
)
TAGS = st.sampled_from([0x57, 0x5A, 0x84, 0x95, 0x9F02, 0x9F1F, 0x5F24, 0xDFEE12, 0xFFEE1F & 0xDFFFFF])
OBJECTS = st.lists(st.builds(Tlv, TAGS, st.binary(max_size=300)), max_size=5)


def test_a_cards_answer():
    (fci,) = parse(PPSE)
    assert fci.tag == 0x6F
    assert fci.constructed
    assert [f"{one.tag:X}" for one in walk([fci])] == ["6F", "84", "A5", "BF0C", "61", "4F", "87", "50"]
    assert find([fci], 0x4F) == bytes.fromhex("a0000000043060")
    assert find([fci], 0x50) == b"MAESTRO"
    assert find([fci], 0x9F38) is None
    assert encode([fci]) == PPSE


@given(OBJECTS)
def test_what_was_encoded_is_parsed(objects):
    assert parse(encode(objects)) == tuple(objects)
    assert parse(b"\0\0" + encode(objects) + b"\0") == tuple(objects)
    assert template(0x70, *objects).children() == tuple(objects)


@given(st.binary(max_size=80))
def test_any_bytes_are_objects_or_a_card_error(data):
    try:
        found = parse(data)
        list(walk(found))
    except CardError:
        return
    assert sum(len(one.value) for one in found) <= len(data)


@pytest.mark.parametrize("data", ["57", "5702aa", "9f", "9f8080808001", "5784", "578400000001aa", "5780"])
def test_what_breaks_off_is_refused(data):
    with pytest.raises(CardError):
        parse(bytes.fromhex(data))


def test_templates_without_end_are_refused():
    nested = Tlv(0x5A, b"")
    for _ in range(20):
        nested = template(0x70, nested)
    with pytest.raises(CardError, match="too deep"):
        list(walk([nested]))


def test_a_data_object_list():
    assert parse_dol(bytes.fromhex("9f66049f02069f37045f2a02")) == (
        (0x9F66, 4),
        (0x9F02, 6),
        (0x9F37, 4),
        (0x5F2A, 2),
    )
    with pytest.raises(CardError):
        parse_dol(bytes.fromhex("9f6604 9f02"))


def test_tags_are_sent_as_they_are_written():
    assert tag_bytes(0x57) == b"\x57"
    assert tag_bytes(0xDFEE12) == bytes.fromhex("dfee12")


def test_a_repr_shows_no_value():
    assert "4761" not in repr(Tlv(0x5A, bytes.fromhex("4761739001010119")))
