"""Which application pays: EMV 4.3 Book 1, section 12, and EMV Contactless Book B, section 3.3."""

from __future__ import annotations

import pytest

from hw.errors import CardError
from hw.tlv import Tlv
from terminal.emv import select
from terminal.emv.select import MAX_CANDIDATES, MAX_DIRECTORY_RECORDS, Candidate, contact, contactless
from terminal.emv.tags import Tag
from tests.terminal.emv.asked import MAESTRO, PPSE, PSE, VISA, Card, entry, fci, ok, ppse, pse, record, run
from tests.terminal.emv.asked import select as selects

AIDS = (VISA, MAESTRO)
SELECT_PPSE, SELECT_PSE = selects(PPSE), selects(PSE)
BLOCKED, NOT_FOUND = b"\x6a\x81", b"\x6a\x82"


def aids(found: list[Candidate]) -> list[bytes]:
    return [one.aid for one in found]


def test_the_golden_answer_to_select_ppse_offers_maestro() -> None:
    golden = bytes.fromhex(
        "6F2C840E325041592E5359532E4444463031A51ABF0C1761154F07A000000004306087010150074D41455354524F90009000"
    )[:-2]
    card = Card(**{SELECT_PPSE: golden})
    assert run(contactless(AIDS), card.transmit) == [Candidate(MAESTRO, "MAESTRO", 1)]
    assert card.heard == [bytes.fromhex("00A404000E325041592E5359532E444446303100")]


@pytest.mark.parametrize(
    ("priorities", "first"),
    [
        ((2, 1), MAESTRO),
        ((1, 2), VISA),
        ((0, 15), MAESTRO),
        ((None, 3), MAESTRO),
        ((1, 1), VISA),
        ((0x81, 2), VISA),
    ],
)
def test_the_card_says_the_order(priorities: tuple[int | None, int], first: bytes) -> None:
    card = Card(**{SELECT_PPSE: ppse(entry(VISA, priorities[0]), entry(MAESTRO, priorities[1]))})
    found = run(contactless(AIDS), card.transmit)
    assert (aids(found)[0], len(found)) == (first, 2)


def test_what_is_not_taken_here_is_left_out_whatever_its_priority() -> None:
    card = Card(**{SELECT_PPSE: ppse(entry(bytes.fromhex("A0000003591010028001"), 1), entry(MAESTRO, 2))})
    assert aids(run(contactless(AIDS), card.transmit)) == [MAESTRO]


def test_a_longer_name_is_taken_by_its_beginning_and_a_shorter_one_is_not() -> None:
    card = Card(**{SELECT_PPSE: ppse(entry(VISA + b"\x01"), entry(MAESTRO[:-1]))})
    assert aids(run(contactless(AIDS), card.transmit)) == [VISA + b"\x01"]


@pytest.mark.parametrize(
    "listed",
    [
        (entry(b"\xa0\x00\x00"),),
        (entry(VISA + bytes(10)),),
        (Tlv(Tag.DIRECTORY_ENTRY, Tlv(Tag.LABEL, b"VISA").encode()),),
        (),
    ],
    ids=["too short", "too long", "nameless", "none"],
)
def test_an_entry_without_a_name_that_can_be_one_is_no_candidate(listed: tuple[Tlv, ...]) -> None:
    assert run(contactless(AIDS), Card(**{SELECT_PPSE: ppse(*listed)}).transmit) == []


def test_no_more_candidates_are_considered_than_a_card_can_mean() -> None:
    many = [entry(VISA + bytes((number,))) for number in range(200)]
    found = run(contactless(AIDS), Card(**{SELECT_PPSE: ppse(*many)}).transmit)
    assert len(found) == MAX_CANDIDATES


def test_a_label_is_shown_as_far_as_it_can_be() -> None:
    card = Card(**{SELECT_PPSE: ppse(entry(VISA, label=b"VI\x1b[31mSA \xff" + b"X" * 20))})
    assert run(contactless(AIDS), card.transmit)[0].label == "VI[31mSA XXXXX"


@pytest.mark.parametrize("asking", [contactless, contact])
def test_a_card_that_is_blocked_says_so(asking: type) -> None:
    with pytest.raises(CardError, match="the card is blocked"):
        run(asking(AIDS), Card(x00a404=BLOCKED).transmit)


def test_a_contactless_card_without_a_directory_is_no_payment_card() -> None:
    card = Card()
    with pytest.raises(CardError, match=r"no payment card \(6A82\)"):
        run(contactless(AIDS), card.transmit)
    assert len(card.heard) == 1


def test_the_directory_of_an_inserted_card_is_read_to_its_end() -> None:
    card = Card(
        **{
            SELECT_PSE: pse(sfi=2),
            "x00b20114": record(entry(MAESTRO, 2)),
            "x00b20214": record(entry(VISA, 1)),
            "x00b20314": b"\x6a\x83",
        }
    )
    assert aids(run(contact(AIDS), card.transmit)) == [VISA, MAESTRO]
    assert [heard[:4].hex() for heard in card.heard] == ["00a40400", "00b20114", "00b20214", "00b20314"]


def test_a_directory_without_an_end_is_given_up() -> None:
    card = Card(**{SELECT_PSE: pse(), "x00b2": record(entry(VISA))})
    assert aids(run(contact(AIDS), card.transmit)) == [VISA]
    assert len(card.heard) == 1 + MAX_DIRECTORY_RECORDS


@pytest.mark.parametrize(
    "directory",
    [
        {SELECT_PSE: NOT_FOUND},
        {SELECT_PSE: b"\x62\x83"},
        {SELECT_PSE: pse(sfi=0)},
        {SELECT_PSE: pse(sfi=11)},
        {SELECT_PSE: ok(Tlv(Tag.DF_NAME, PSE))},
        {SELECT_PSE: b"\x6f\x7f\x00\x90\x00"},
        {SELECT_PSE: pse(), "x00b2010c": record(entry(b"\xa0\x00\x00\x03\x59"))},
        {SELECT_PSE: pse(), "x00b2010c": b"\x70\x7f\x00\x90\x00"},
    ],
    ids=["none", "blocked", "SFI 0", "SFI 11", "no SFI", "nonsense", "nothing of ours", "nonsense in a record"],
)
def test_without_a_directory_of_use_each_application_is_asked_for(directory: dict[str, bytes]) -> None:
    card = Card(**directory, **{selects(MAESTRO): fci(MAESTRO)})
    assert aids(run(contact(AIDS), card.transmit)) == [MAESTRO]


def test_a_name_that_begins_so_may_not_be_the_last() -> None:
    accounts = [VISA + b"\x01", VISA + b"\x02"]
    answers = [fci(accounts[0], Tlv(Tag.PRIORITY, b"\x02")), fci(accounts[1], Tlv(Tag.PRIORITY, b"\x01"))]

    def transmit(command: bytes) -> bytes:
        return answers.pop(0) if command[5:12] == VISA and answers else NOT_FOUND

    assert aids(run(contact(AIDS), transmit)) == list(reversed(accounts))


def test_a_card_that_goes_on_naming_the_same_is_asked_no_more() -> None:
    card = Card(**{selects(VISA)[:9]: fci(VISA + b"\x01")})
    assert aids(run(contact((VISA,)), card.transmit)) == [VISA + b"\x01"]
    assert len(card.heard) == 3  # the directory, the first, and once the next


def test_a_card_with_no_end_of_names_is_asked_no_more_than_is_sensible() -> None:
    heard = []

    def transmit(command: bytes) -> bytes:
        heard.append(command)
        return fci(VISA + bytes((len(heard),))) if command[5:12] == VISA else NOT_FOUND

    assert len(run(contact(AIDS), transmit)) == MAX_CANDIDATES
    assert len(heard) <= MAX_CANDIDATES + len(AIDS) + 1


def test_a_card_that_selects_another_application_than_was_asked_for_has_not_that_one() -> None:
    card = Card(**{selects(VISA): fci(MAESTRO)})
    assert run(contact((VISA,)), card.transmit) == []


def test_where_all_that_there_is_is_blocked_it_says_so() -> None:
    with pytest.raises(CardError, match="application is blocked"):
        run(contact(AIDS), Card(**{selects(VISA): b"\x62\x83"}).transmit)
    card = Card(**{selects(VISA): b"\x62\x83", selects(MAESTRO): fci(MAESTRO)})
    assert aids(run(contact(AIDS), card.transmit)) == [MAESTRO]


def test_nobody_can_be_asked_for_a_confirmation() -> None:
    card = Card(**{SELECT_PSE: pse(), "x00b2010c": record(entry(VISA, 0x81), entry(MAESTRO, 2))})
    assert aids(run(contact(AIDS), card.transmit)) == [MAESTRO]
    card = Card(**{SELECT_PSE: pse(), "x00b2010c": record(entry(VISA, 0x81))})
    with pytest.raises(CardError, match="wants its holder to choose"):
        run(contact(AIDS), card.transmit)


def test_the_commands_are_those_of_the_book() -> None:
    assert select.select(VISA).encode().hex() == "00a4040007a000000003101000"
    assert select.select(VISA, select.NEXT).encode().hex() == "00a4040207a000000003101000"
    assert select.read_record(2, 3).encode().hex() == "00b2031400"
