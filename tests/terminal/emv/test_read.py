"""From an application that was chosen to its track 2: EMV 4.3 Book 3, sections 10.1 and 10.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.apdu import Command, Response
from hw.card import EntryMode
from hw.errors import CardError
from hw.tlv import Tlv, encode, template
from sim.card import card_file, inserted, names, tapped
from terminal.emv.read import MAX_RECORDS, CardData, read
from terminal.emv.tags import Tag
from tests.terminal.emv.asked import (
    MAESTRO,
    PPSE,
    TOLD,
    TRACK_2,
    VISA,
    Card,
    entry,
    fci,
    ok,
    options,
    ppse,
    record,
    run,
    select,
)

GPO = "x80a8"
LARGEST = 200
"""Commands that a card may be asked, whatever it answers."""


def tap(**answers: bytes) -> Card:
    """A tapped Visa that answers so once it is selected."""
    return Card(**{select(PPSE): ppse(entry(VISA, label=b"VISA")), select(VISA): fci(VISA)} | answers)


def reads(card: Card) -> CardData:
    found: CardData = run(read(EntryMode.CONTACTLESS, TOLD), card.transmit)
    return found


def refuses(card: Card, why: str) -> None:
    with pytest.raises(CardError, match=why) as caught:
        reads(card)
    assert caught.value.advice
    assert "4761739001010119" not in str(caught.value)


# -- cards that pay -------------------------------------------------------------------------------------------


INTERFACES = {EntryMode.CHIP: inserted, EntryMode.CONTACTLESS: tapped}
REFUSALS = {"application-blocked", "blocked", "garbled", "not-for-payment", "see-phone"}
CARDS = [
    (name, mode) for name in names() for mode in INTERFACES if card_file(name).atr or mode is not EntryMode.CHIP
]


@pytest.mark.parametrize(("name", "interface"), [case for case in CARDS if case[0] not in REFUSALS])
def test_every_card_of_the_package_that_can_pay_is_read(name, interface):
    data = run(read(interface, TOLD), INTERFACES[interface](name).transmit)
    assert (data.masked_pan, data.expiry, data.entry_mode) == (card_file(name).masked_pan, "2812", interface)
    assert data.pan not in repr(data)


@pytest.mark.parametrize(("name", "interface"), [case for case in CARDS if case[0] in REFUSALS])
def test_every_one_that_cannot_says_why_not(name, interface):
    with pytest.raises(CardError) as caught:
        run(read(interface, TOLD), INTERFACES[interface](name).transmit)
    assert caught.value.advice


def test_track_2_in_the_options_is_enough() -> None:
    data = reads(tap(**{GPO: options("", Tlv(Tag.TRACK_2, TRACK_2), Tlv(Tag.PAN_SEQUENCE, b"\x07"))}))
    assert (data.pan, data.expiry, data.sequence) == ("4761739001010119", "2812", "07")
    assert (data.aid, data.label, data.track2_equivalent()) == (VISA, "VISA", TRACK_2)


def test_format_1_and_the_records_that_it_lists() -> None:
    card = tap(
        **{
            GPO: ok(Tlv(Tag.OPTIONS_1, bytes.fromhex("1800 08010100 10020300"))),
            "x00b2010c": record(Tlv(Tag.TRACK_2, TRACK_2)),
            "x00b20214": record(),
            "x00b20314": record(Tlv(Tag.PAN_SEQUENCE, b"\x01")),
        }
    )
    assert reads(card).sequence == "01"
    assert [heard[:4].hex() for heard in card.heard[3:]] == ["00b2010c", "00b20214", "00b20314"]


@pytest.mark.parametrize(
    ("service_code", "track2"),
    [(b"\x02\x01", "4761739001010119D2812201"), (None, "4761739001010119D2812F")],
)
def test_track_2_is_made_of_number_date_and_service_code(service_code: bytes | None, track2: str) -> None:
    objects = [Tlv(Tag.PAN, bytes.fromhex("4761739001010119")), Tlv(Tag.EXPIRATION_DATE, bytes.fromhex("281231"))]
    if service_code:
        objects.append(Tlv(Tag.SERVICE_CODE, service_code))
    made = reads(tap(**{GPO: options("08010100"), "x00b2010c": record(*objects)})).track2_equivalent()
    assert made == bytes.fromhex(track2)


def test_an_application_that_does_not_want_to_gives_way_to_the_next() -> None:
    good = {GPO + "0000028300": options("", Tlv(Tag.TRACK_2, TRACK_2))}
    for no in (b"\x6a\x82", b"\x62\x83"):
        card = Card(
            **{select(PPSE): ppse(entry(MAESTRO, 1), entry(VISA, 2)), select(MAESTRO): no, select(VISA): fci(VISA)}
            | good
        )
        assert reads(card).aid == VISA

    starts = [b"\x69\x85", options("", Tlv(Tag.TRACK_2, TRACK_2))]
    listed = Card(
        **{
            select(PPSE): ppse(entry(MAESTRO, 1), entry(VISA, 2)),
            select(MAESTRO): fci(MAESTRO),
            select(VISA): fci(VISA),
        }
    )
    found = run(
        read(EntryMode.CONTACTLESS, TOLD),
        lambda command: starts.pop(0) if command[1] == 0xA8 else listed.transmit(command),
    )
    assert found.aid == VISA


def test_a_card_is_told_what_it_asks_for() -> None:
    pdol = Tlv(Tag.PDOL, bytes.fromhex("9F0206 5F2A02 9F3704 DF0102"))
    card = tap(**{select(VISA): fci(VISA, pdol), GPO: options("", Tlv(Tag.TRACK_2, TRACK_2))})
    reads(card)
    assert card.heard[-1].hex() == "80a8000010830e" + "000000001250" + "0978" + "01020304" + "0000" + "00"


def test_records_of_the_cards_own_files_are_read_and_not_looked_into() -> None:
    card = tap(**{GPO: options("58010100", Tlv(Tag.TRACK_2, TRACK_2)), "x00b2015c": b"\xff\xff\xff\x90\x00"})
    assert reads(card).pan


# -- cards that do not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({GPO: b"\x69\x85"}, r"refuses to start \(6985\)"),
        ({GPO: b"\x6d\x00"}, r"refuses to start \(6D00\)"),
        ({GPO: b"\x69\x86"}, "asks its owner"),
        ({select(VISA): b"\x62\x83"}, "application is blocked"),
        ({select(VISA): b"\x6a\x82"}, r"refuses to start \(6A82\)"),
        ({GPO: ok()}, "nothing of its records"),
        ({GPO: ok(Tlv(0x70, b""))}, "nothing of its records"),
        ({GPO: options("0801")}, "list of records makes no sense"),
        ({GPO: options("00010100")}, "list of records makes no sense"),
        ({GPO: options("F8010100")}, "list of records makes no sense"),
        ({GPO: options("08000100")}, "list of records makes no sense"),
        ({GPO: options("08020100")}, "list of records makes no sense"),
        ({GPO: options("08010100" * 17)}, "list of records makes no sense"),
        ({GPO: options("0801FF00")}, "more records"),
        ({GPO: options("08010100"), "x00b2": b"\x6a\x83"}, r"does not give its record \(6A83\)"),
        ({GPO: options("08010100"), "x00b2": b"\x70\x7f\x57\x90\x00"}, "breaks off"),
        ({GPO: options("08010100"), "x00b2": record()}, "no card number"),
        (
            {GPO: options("08010100"), "x00b2": record(Tlv(Tag.PAN, bytes.fromhex("4761739001010119")))},
            "no card number",
        ),
        ({GPO: options("", Tlv(Tag.TRACK_2, b""))}, "not laid out"),
        ({GPO: options("", Tlv(Tag.TRACK_2, bytes.fromhex("4761739001010118D2812201")))}, "Luhn"),
        ({GPO: options("", Tlv(Tag.TRACK_2, bytes.fromhex("4761739001010119D2813201")))}, "no month 13"),
        (
            {GPO: options("", Tlv(Tag.TRACK_2, TRACK_2), Tlv(Tag.PAN, bytes.fromhex("5413330089010012")))},
            "two card numbers",
        ),
        ({GPO: options("", Tlv(Tag.TRACK_2, TRACK_2), Tlv(Tag.TRACK_2, TRACK_2[:-1]))}, "twice, and differently"),
        ({select(VISA): fci(VISA, Tlv(Tag.PDOL, bytes.fromhex("9F027F") * 3))}, "asks for more"),
        ({select(VISA): fci(VISA, Tlv(Tag.PDOL, b"\x9f"))}, "cut short"),
    ],
)
def test_a_card_that_cannot_pay_says_why(answers: dict[str, bytes], why: str) -> None:
    refuses(tap(**answers), why)


def test_no_application_in_common() -> None:
    refuses(
        Card(**{select(PPSE): ppse(entry(bytes.fromhex("A0000003591010028001")))}), "no application that is taken"
    )


def test_the_limit_of_records_is_of_all_files_together() -> None:
    half = f"{MAX_RECORDS // 2 + 1:02X}"
    refuses(tap(**{GPO: options(f"0801{half}00 1001{half}00")}), "more records")


_TAGS = st.sampled_from([*Tag, 0x9F99, 0xDF01])
_OBJECT = st.builds(Tlv, _TAGS, st.binary(max_size=40))
_OBJECTS = st.lists(_OBJECT, max_size=5).map(encode)
_NESTED = st.builds(
    lambda tag, objects: template(tag, *objects).encode(),
    st.sampled_from([Tag.FCI, Tag.RECORD, Tag.OPTIONS_2, Tag.FCI_PROPRIETARY]),
    st.lists(st.one_of(_OBJECT, st.just(entry(VISA)), st.just(Tlv(Tag.DIRECTORY_SFI, b"\x01"))), max_size=5),
)
_ANSWERS = st.one_of(
    st.just(ppse(entry(VISA), entry(MAESTRO))[:-2]),
    st.just(fci(VISA)[:-2]),
    st.just(options("08011000")[:-2]),
    _NESTED,
    _OBJECTS,
    st.binary(max_size=300),
)
_WORDS = st.one_of(st.just(0x9000), st.sampled_from([0x6A81, 0x6A82, 0x6283, 0x6985]), st.integers(0, 0xFFFF))


@given(st.sampled_from([EntryMode.CHIP, EntryMode.CONTACTLESS]), st.data())
def test_whatever_a_card_answers_it_comes_to_an_end_as_a_card_or_a_card_error(
    interface: EntryMode, data: st.DataObject
) -> None:
    asking = read(interface, TOLD)  # type: ignore[arg-type]
    command = next(asking)
    for _ in range(LARGEST):
        assert Command.decode(command.encode()) == command
        response = Response(data.draw(_ANSWERS), data.draw(_WORDS))
        try:
            command = asking.send(response)
        except StopIteration as done:
            card: CardData = done.value
            break
        except CardError:
            return
    else:
        raise AssertionError("the card keeps the terminal busy")
    assert len(card.track2_equivalent()) <= 19
