"""The virtual card: what it answers, and that it answers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import tlv
from hw.apdu import Command, Response
from sim.card import VirtualCard, card_file, inserted, names, tapped

VISA = bytes.fromhex("A0000000031010")
PSE, PPSE = b"1PAY.SYS.DDF01", b"2PAY.SYS.DDF01"
GOLDEN_SELECT = bytes.fromhex("00A404000E325041592E5359532E444446303100")


def say(card: VirtualCard, text: str) -> str:
    return card.transmit(bytes.fromhex(text)).hex()


def select(name: bytes, which: int = 0) -> str:
    return Command(0, 0xA4, 4, which, name, le=256).encode().hex()


def started(made=tapped, name="visa-credit") -> VirtualCard:
    card = made(name)
    assert say(card, select(VISA)).endswith("9000")
    size = 33 if made is tapped else 4
    assert say(card, f"80a80000{size + 2:02x}83{size:02x}{'00' * size}00").endswith("9000")
    return card


def test_the_answer_to_select_ppse_is_laid_out_as_published_ones_are():
    published = bytes.fromhex(
        "6F2C840E325041592E5359532E4444463031A51ABF0C1761154F07A000000004306087010150074D41455354524F"
    )
    ours = Response.decode(tapped("maestro").transmit(GOLDEN_SELECT))
    shapes = [
        [one.tag for one in tlv.walk(tlv.parse(data)) if one.tag not in (0x87, 0x50)]
        for data in (published, ours.data)
    ]
    assert shapes[0] == shapes[1]
    assert tlv.find(tlv.parse(ours.data), 0x4F) == tlv.find(tlv.parse(published), 0x4F)


def test_each_side_of_a_card_has_its_own_directory():
    assert say(tapped("visa-credit"), select(PSE)) == "6a82"
    assert say(inserted("visa-credit"), select(PPSE)) == "6a82"
    assert say(inserted("visa-debit"), select(PSE)) == "6a82"  # which has none
    card = inserted("visa-credit")
    assert say(card, select(PSE)).endswith("9000")
    assert say(card, "00b2010c00").endswith("9000")
    assert say(card, "00b2020c00") == "6a83"


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        ("00a4000002 3f00", "6a86"),  # by file identifier
        ("00a4040107 a0000000031010 00", "6a86"),
        ("00a40400", "6700"),
        ("00a4040007 a0000000041010 00", "6a82"),
        ("80a80100", "6a86"),
        ("80a80000 02 8300 00", "6985"),
        ("80ca9f3600", "6985"),
        ("00b2010400", "6a86"),  # SFI 0
        ("00b2000c00", "6a86"),
        ("00b2010800", "6a86"),
        ("00b2010c00", "6a82"),
        ("0088000004 01020304 00", "6d00"),
        ("80ae800000", "6d00"),
        ("0020008008 241234ffffffffff", "6d00"),
        ("0c a4 04 00", "6e00"),
        ("ff ca 00 00 00", "6e00"),
        ("", "6700"),
        ("00a4", "6700"),
        ("00a4040008 a0000000031010", "6700"),
    ],
)
def test_what_it_refuses(command, sw):
    assert say(tapped("visa-credit"), command) == sw


@pytest.mark.parametrize(
    ("command", "sw"),
    [
        ("80a80000 02 8300 00", "6985"),  # a second time
        ("00b2020c00", "6a83"),
        ("00b2011400", "6a82"),
        ("80ca9f3600", "9f3602002a9000"),
        ("80ca9f1700", "6a88"),
        ("00b2010c01", "6c0c"),
        ("00b2010cff", "6c0c"),
    ],
)
def test_once_it_is_started(command, sw):
    assert say(started(), command) == sw


def test_a_length_that_fits_or_none_gets_the_record():
    card = started()
    whole = say(card, "00b2010c00")
    assert whole == say(card, "00b2010c0c") == say(card, "00b2010c")
    assert whole == "700a5f28020300" + "9f0702ff00" + "9000"


@pytest.mark.parametrize("data", ["", "8301ff", "8300", "5704000000", "83", "8305" + "00" * 5, "8300 8300"])
def test_options_are_given_for_what_was_asked_for_and_nothing_else(data):
    card = inserted("visa-credit")
    say(card, select(VISA))
    brought = bytes.fromhex(data)
    command = Command(0x80, 0xA8, data=brought, le=256).encode()
    assert card.transmit(command).hex() == "6a80"
    assert say(card, "80a8000006 8304 03000978 00").endswith("9000")


def test_records_wait_for_the_application_to_be_started():
    card = inserted("visa-credit")
    say(card, select(VISA))
    assert say(card, "00b2010c00") == "6985"


def test_names_that_begin_so_come_one_after_the_other():
    card = inserted("visa-credit-and-debit")
    found = []
    for which in (0, 2, 2):
        answer = Response.decode(card.transmit(Command(0, 0xA4, 4, which, VISA, le=256).encode()))
        found.append((tlv.find(tlv.parse(answer.data), 0x50), answer.sw))
    assert found == [(b"VISA DEBIT", 0x9000), (b"VISA CREDIT", 0x9000), (None, 0x6A82)]


def test_a_selection_ends_the_one_before():
    card = started(inserted)
    assert say(card, "00b2010c00").endswith("9000")
    say(card, select(VISA))
    assert say(card, "00b2010c00") == "6985"
    say(card, select(PSE))
    assert say(card, "80ca9f3600") == "6985"


@pytest.mark.parametrize(
    ("name", "sw"), [("blocked", "6a81"), ("application-blocked", "6283"), ("not-for-payment", "6a82")]
)
def test_cards_that_do_not_work_do_so_by_what_their_file_says(name, sw):
    assert say(inserted(name), select(VISA)) == sw


@given(st.sampled_from(names()), st.lists(st.binary(max_size=30), max_size=8))
def test_it_answers_whatever_it_is_sent(name, commands):
    card = VirtualCard(card_file(name), contactless=True)
    for command in commands:
        assert len(card.transmit(command)) >= 2


_COMMANDS = st.builds(
    lambda header, data, le: bytes(header) + bytes((len(data),)) + data + le,
    st.tuples(
        st.sampled_from([0x00, 0x80]),
        st.sampled_from([0xA4, 0xB2, 0xA8, 0xCA]),
        st.sampled_from([0, 1, 2, 4, 0x9F]),
        st.sampled_from([0, 2, 0x0C, 0x14, 0x36]),
    ),
    st.one_of(st.sampled_from([VISA, PSE, PPSE, b"\x83\x00", b"\x83\x04abcd"]), st.binary(min_size=1, max_size=10)),
    st.sampled_from([b"", b"\0", b"\5"]),
)


@given(st.sampled_from(names()), st.booleans(), st.lists(_COMMANDS, max_size=12))
def test_in_whatever_order_it_is_asked(name, contactless, commands):
    card = VirtualCard(card_file(name), contactless=contactless)
    for command in commands:
        assert 2 <= len(card.transmit(command)) <= 258
