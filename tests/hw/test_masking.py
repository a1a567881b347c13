"""What of a card's words may stand in a trace."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hw.masking import (
    MASKS,
    blanked_text,
    masked_command,
    masked_objects,
    masked_pan,
    masked_response,
    masked_text,
    masked_tracks,
)
from hw.pan import luhn_digit, passes_luhn
from hw.tlv import Tlv, encode, find, parse, template

pans = st.text("0123456789", min_size=11, max_size=18).map(lambda head: head + luhn_digit(head))


@given(pans)
def test_a_masked_number_reads_as_a_card_and_is_nobody_s(pan):
    masked = masked_pan(pan)
    assert len(masked) == len(pan)
    assert passes_luhn(masked)
    assert masked[-4:] == pan[-4:]
    assert len(pan) == 12 or masked[:6] == pan[:6]
    hidden = masked[6 if len(pan) > 12 else 0 : -4]
    assert hidden[:-1].strip("0") == ""


@pytest.mark.parametrize(
    ("tag", "value", "masked"),
    [
        (0x5A, "4761739001010119", "4761730000010119"),
        (0x5A, "6304939304310009610f", "6304930000000089610f"),
        (0x57, "4761739001010119d28122011000012300000f", "4761730000010119d28122010000000000000f"),
        (0x9F6B, "5413330089600010d28122010123450f", "5413330000090010d28122010000000f"),
        (0x5F20, b"DOE/JOHN".hex(), b"XXXXXXXX".hex()),
        (0x56, b"B4761739001010119^DOE/JOHN^28122011234".hex(), b"B4761730000010119^XXXXXXXX^28122010000".hex()),
        (0x9F1F, b"1234".hex(), b"0000".hex()),
        (0x9F46, "0102030405", "0000000000"),
        (0x5F24, "281231", "281231"),
        (0x5F22, b"4761739001010119=2812".hex(), "00" * 21),
        (0x58, b"014761739001010119==".hex(), "00" * 20),
        (0x57, "12d4761739001010119f", "00d0000000000000000f"),  # what follows the number is one itself
    ],
)
def test_each_tag_s_mask(tag, value, masked):
    deep = encode([template(0x70, template(0xA5, Tlv(tag, bytes.fromhex(value))), Tlv(0x94, b"\x08\x01\x01\x00"))])
    found = masked_objects(deep)
    value_found = find(parse(found), tag)
    assert value_found is not None
    assert value_found.hex() == masked
    assert len(found) == len(deep)
    assert find(parse(found), 0x94) == b"\x08\x01\x01\x00"


def test_a_length_in_more_bytes_than_it_needs_stays_so():
    long = bytes.fromhex("70810a 5a08 4761739001010119".replace(" ", ""))
    assert masked_objects(long).hex() == "70810a5a084761730000010119"


@given(st.binary(max_size=300))
def test_anything_is_masked_to_its_own_length(data):
    for mask in (masked_objects, masked_command, masked_response):
        assert len(mask(data)) == len(data)


@given(st.sampled_from(sorted(MASKS)), st.binary(max_size=120))
@example(0x57, b"\xd0\x0f")
def test_any_value_of_a_masked_tag_keeps_its_length(tag, value):
    whole = Tlv(tag, value).encode()
    masked = masked_objects(whole)
    assert len(masked) == len(whole)
    assert [one.tag for one in parse(masked)] == [tag]


@pytest.mark.parametrize("value", ["4761739001010119", "4761739001010119ab28", "12345678901d2812"])
def test_a_track_that_is_none_shows_nothing_of_a_number(value):
    assert value[4:-4] not in masked_objects(Tlv(0x57, bytes.fromhex(value)).encode()).hex()


def test_commands_lose_their_pins_and_responses_keep_their_status():
    assert masked_command(bytes.fromhex("0020008008241234ffffffffff")).hex() == "00200080080000000000000000"
    select = bytes.fromhex("00a404000e325041592e5359532e444446303100")
    assert masked_command(select) == select
    assert masked_response(bytes.fromhex("5a0847617390010101199000")).hex() == "5a0847617300000101199000"
    assert masked_response(b"\x12\x34\x56\x90\x00") == b"\0\0\0\x90\0"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"%B4761739001010119^DOE/J^28122011234?;4761739001010119=28122011234?", None),
        (b";4761********0119=2812201*****?", b";4761********0119=2812201*****?"),
        (b"%*4761********0119^DOE/J^2812***99?", b"%*4761********0119^XXXXX^2812***00?"),
        (b"%E?;4111111111111111=28121011?", b"%E?;4111110000091111=28121010?"),
        (b"call 123456789 or 1234567", b"call 000000000 or 1234567"),
        (b";12345678901?", b";00000000000?"),
        (b";12=4761739001010119?", b";00=0000000000000000?"),
        (b"%BX^DOE^4761739001010119?", b"%B0^XXX^0000000000000000?"),
    ],
)
def test_stripe_tracks_among_anything_else(said: bytes, shown: bytes | None) -> None:
    masked = masked_tracks(said)
    assert masked == shown if shown is not None else masked != said
    assert len(masked) == len(said)
    assert b"4761739001010119" not in masked
    assert masked_tracks(masked) == masked


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"4761739001010119=28122011234", b"4761730000010119=28122010000"),
        (b"B4761739001010119^DOE/J^28122011234", b"B4761730000010119^XXXXX^28122010000"),
        (b"%B4761739001010119^DOE/J^28122011234", b"%" + b"0" * 35),
        (b"%B4761739001010119^DOE/J^2812?;47617", b"%" + b"0" * 28 + b"?;00000"),
        (b"1000001230000", b"0000000000000"),
        (b"\x02;4761739\xb0001010119=2812?\r\x03", b"\x02;0000000000000000000000?\r\x03"),
        (b"", b""),
    ],
)
def test_a_track_without_its_sentinels_and_what_is_none(said: bytes, shown: bytes) -> None:
    assert masked_text(said) == shown


@given(st.binary(max_size=120))
def test_of_text_that_nobody_can_read_nothing_stays_but_what_separates_it(data: bytes) -> None:
    for mask in (masked_text, blanked_text):
        assert len(mask(data)) == len(data)
    assert set(blanked_text(data)) <= set(b"0%;+?\x02\x03\r\x10\x1b")


@pytest.mark.parametrize("tag", [0x17, 0x9F26, 0xDF20])
@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("4761739001010119", "4761730000010119"),
        ("4761739001010119d28122011000012300000f", "4761730000010119d28122010000000000000f"),
        (b";4761739001010119=2812?".hex(), b";0000000000000000=2812?".hex()),
        ("ff4761739001010119d281220110000123ff", "ff4761730000010119d281220100000000ff"),
        ("57044761d281", "57040000d000"),  # objects in what holds none
        ("0101015a084761739001010119", "0101015a084761730000010119"),
        ("000000001250", "000000001250"),
        ("1122334455667788", "1122334455667788"),
        (b"DEBIT MASTERCARD".hex(), b"DEBIT MASTERCARD".hex()),  # which could be a track, in nibbles
    ],
)
def test_what_looks_like_a_number_is_one_in_any_tag(tag, value, masked):
    assert masked_objects(Tlv(tag, bytes.fromhex(value)).encode()) == Tlv(tag, bytes.fromhex(masked)).encode()


@pytest.mark.parametrize("ins", ["d6", "dc", "e2", "da", "20"])
def test_what_is_written_to_a_card_is_nobody_s(ins: str) -> None:
    assert masked_command(bytes.fromhex(f"00{ins}00000a5a084761739001010119")).hex() == f"00{ins}00000a" + "00" * 10
