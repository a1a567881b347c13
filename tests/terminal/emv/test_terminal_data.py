"""What a card is told of the terminal and of the sale."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.config import Config, Emv, Location, Merchant, TerminalIds, check_config
from terminal.emv.countries import NUMBERS
from terminal.emv.tags import Tag
from terminal.emv.terminal_data import NUMERIC, SCHEMES, terminal_data
from terminal.errors import HostAnswerInvalid
from terminal.money import Amount
from tests.terminal.emv.asked import TOLD

CONFIG = Config(
    terminal=TerminalIds("TID-1", "POS-00000001"),
    merchant=Merchant("m", "Shop"),
    location=Location(timezone="Europe/Athens", country="GR", currency="EUR"),
    emv=Emv(("A0000000031010",), "60D8C8", "F000F0A001", "25"),
)
LATE = datetime(2025, 12, 31, 23, 30, 15, tzinfo=UTC)


def told(**changes: object) -> dict[int, bytes]:
    config = msgspec.structs.replace(CONFIG, **changes)
    return dict(terminal_data(config, Amount(1250, "EUR"), LATE, b"\1\2\3\4").objects)


def test_every_object_in_the_format_of_the_book() -> None:
    assert {tag: value.hex() for tag, value in told().items()} == {
        Tag.AMOUNT: "000000001250",
        Tag.CURRENCY: "0978",
        Tag.EXPONENT: "02",
        Tag.COUNTRY: "0300",
        Tag.DATE: "260101",  # in Athens it is past midnight
        Tag.TIME: "013015",
        Tag.TRANSACTION_TYPE: "00",
        Tag.UNPREDICTABLE_NUMBER: "01020304",
        Tag.TERMINAL_QUALIFIERS: "22804000",
        Tag.TERMINAL_TYPE: "25",
        Tag.CAPABILITIES: "60d8c8",
        Tag.ADDITIONAL_CAPABILITIES: "f000f0a001",
    }


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "Europe", "\0"])
def test_a_time_zone_that_is_none_is_utc(zone: str) -> None:
    objects = told(location=Location(timezone=zone, country="XX"))
    assert (objects[Tag.DATE].hex(), objects[Tag.TIME].hex()) == ("251231", "233015")
    assert objects[Tag.COUNTRY] == b"\0\0"


def test_the_configurations_applications_come_before_the_schemes() -> None:
    assert terminal_data(CONFIG, Amount(1, "EUR"), LATE, b"").aids == (bytes.fromhex("A0000000031010"),)
    bare = msgspec.structs.replace(CONFIG, emv=Emv())
    own = terminal_data(bare, Amount(1, "EUR"), LATE, b"").aids
    assert own == TOLD.aids == tuple(bytes.fromhex(aid) for aid in SCHEMES)


@pytest.mark.parametrize(
    ("emv", "field"),
    [
        (Emv(aids=("A00000",)), "emv.aids"),
        (Emv(aids=("A0000000031010", "visa")), "emv.aids"),
        (Emv(aids=("A0" * 17,)), "emv.aids"),
        (Emv(terminal_type="255"), "emv.terminal_type"),
        (Emv(terminal_capabilities="60D8"), "emv.terminal_capabilities"),
        (Emv(additional_capabilities="F000F0A00G"), "emv.additional_capabilities"),
    ],
)
def test_a_configuration_whose_hex_is_none_is_refused_by_the_name_of_the_field(emv: Emv, field: str) -> None:
    with pytest.raises(HostAnswerInvalid) as caught:
        check_config(msgspec.structs.replace(CONFIG, emv=emv))
    assert caught.value.field == field
    check_config(CONFIG)
    check_config(msgspec.structs.replace(CONFIG, emv=Emv()))


@pytest.mark.parametrize(
    ("dol", "said"),
    [
        ([(Tag.AMOUNT, 6)], "000000001250"),
        ([(Tag.AMOUNT, 2)], "1250"),
        ([(Tag.AMOUNT, 8)], "0000000000001250"),
        ([(Tag.AMOUNT, 0)], ""),
        ([(Tag.UNPREDICTABLE_NUMBER, 2)], "0102"),
        ([(Tag.UNPREDICTABLE_NUMBER, 6)], "010203040000"),
        ([(0xDF01, 3), (Tag.CURRENCY, 2)], "0000000978"),
        ([], ""),
    ],
)
def test_a_list_is_filled_as_the_book_says(dol: list[tuple[int, int]], said: str) -> None:
    assert TOLD.listed(dol).hex() == said


@given(
    st.lists(st.tuples(st.one_of(st.sampled_from(Tag), st.integers(1, 0xFFFF)), st.integers(0, 255)), max_size=20)
)
def test_a_list_is_as_long_as_was_asked_for(dol: list[tuple[int, int]]) -> None:
    assert len(TOLD.listed(dol)) == sum(size for _, size in dol)


def test_numbers_are_a_card_s_way_of_writing_them() -> None:
    assert all(value.hex().isdigit() for tag, value in told().items() if tag in NUMERIC)


def test_the_countries_are_249_and_no_two_are_one() -> None:
    assert len(NUMBERS) == len(set(NUMBERS.values())) == 249
    assert (NUMBERS["GR"], NUMBERS["AT"], NUMBERS["US"], NUMBERS["AF"]) == (300, 40, 840, 4)
