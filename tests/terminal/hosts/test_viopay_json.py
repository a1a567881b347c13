"""The JSON both ways: exact where money is, and nothing but a typed error for anything else."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.card import EntryMode
from terminal.crypto.policy import Role
from terminal.errors import CardDataError, HostAnswerInvalid, HostRefused, PaymentRefused
from terminal.hosts import viopay_answers as answers
from terminal.hosts import viopay_payments as payments
from terminal.hosts import viopay_wire as wire
from terminal.hosts.answer import decode
from terminal.hosts.viopay_refusals import refusal
from terminal.money import Amount
from terminal.payment import Happened
from tests.terminal.hosts.samples import CANCEL, CHARGE, KEY_SET, REFUND

EUR = Amount(1250, "EUR")
SEALED = {"format": "TR31-DATA", "ciphertext": "00", "initialization_vector": "00", "mode": "CBC", "key_kcv": "AA"}
STRIPE = wire.Card(masked_pan="476173******0119", expiry="2812", sequence="01", track2=SEALED)

# --- what we send ----------------------------------------------------------------------------------------


def test_a_charge_has_the_protocols_shape():
    plaintext = wire.charge_request(
        EUR,
        EntryMode.SWIPE,
        "order-17",
        STRIPE,
        fallback=True,
        pin={"format": "ISO-4", "block": "00", "key_kcv": "AA"},
        tip=Amount(100, "EUR"),
        offline_approved_at=datetime(2025, 12, 13, 14, 25, 30, tzinfo=UTC),
    )
    assert json.loads(plaintext) == {
        "amount": {"value": "1250", "currency": "EUR"},
        "entry_mode": "swipe",
        "reference": "order-17",
        "card": {"masked_pan": "476173******0119", "expiry": "2812", "sequence": "01", "track2": SEALED},
        "fallback": True,
        "pin": {"format": "ISO-4", "block": "00", "key_kcv": "AA"},
        "tip": {"value": "100", "currency": "EUR"},
        "offline": {"approved_at": "2025-12-13T14:25:30Z"},
    }


def test_what_a_charge_does_not_have_is_left_out():
    card = wire.Card(masked_pan="************0119", expiry="2812", pan=SEALED)
    assert json.loads(wire.charge_request(EUR, EntryMode.MANUAL, "r", card)) == {
        "amount": {"value": "1250", "currency": "EUR"},
        "entry_mode": "manual",
        "reference": "r",
        "card": {"masked_pan": "************0119", "expiry": "2812", "pan": SEALED},
        "fallback": False,
    }


def test_a_reader_that_encrypts_by_itself_is_passed_through():
    own = {"scheme": "dukpt-aes", "ksn": "FFFF", "data": "00"}
    card = wire.Card(masked_pan="476173******0119", expiry="2812", encrypted_card=own)
    assert json.loads(wire.charge_request(EUR, EntryMode.SWIPE, "r", card))["card"]["encrypted_card"] == own


PAN = "4761739001010119"


@pytest.mark.parametrize(
    "card",
    [
        wire.Card(masked_pan=PAN, expiry="2812", track2=SEALED),
        wire.Card(masked_pan="4761739*****0119", expiry="2812", track2=SEALED),
        wire.Card(masked_pan="476173******10119", expiry="2812", track2=SEALED),
        wire.Card(masked_pan="476173******0119", expiry="2813", track2=SEALED),
        wire.Card(masked_pan="476173******0119", expiry="12/28", track2=SEALED),
        wire.Card(masked_pan="476173******0119", expiry="2812", sequence="1", track2=SEALED),
        wire.Card(masked_pan="476173******0119", expiry="2812"),
        wire.Card(masked_pan="476173******0119", expiry="2812", track2=SEALED, pan=SEALED),
    ],
)
def test_a_card_that_shows_too_much_or_cannot_be_one(card):
    with pytest.raises(CardDataError) as caught:
        wire.charge_request(EUR, EntryMode.SWIPE, "r", card)
    assert "0119" not in str(caught.value)


@pytest.mark.parametrize("reference", ["", "a\nb", "a" * 65, "\ud800"])
def test_a_reference_that_does_not_fit(reference):
    with pytest.raises(PaymentRefused, match="reference"):
        wire.charge_request(EUR, EntryMode.SWIPE, reference, STRIPE)
    with pytest.raises(PaymentRefused, match="reason"):
        wire.refund_request(EUR, reference)


def test_a_fallback_is_a_swipe_and_a_tip_is_in_the_charges_currency():
    with pytest.raises(PaymentRefused, match="fallback"):
        wire.charge_request(EUR, EntryMode.CHIP, "r", STRIPE, fallback=True)
    with pytest.raises(PaymentRefused, match="tip"):
        wire.charge_request(EUR, EntryMode.SWIPE, "r", STRIPE, tip=Amount(1, "USD"))


def test_a_charge_above_the_size_that_key_services_take_is_refused():
    def sized(n: int) -> wire.Card:
        return wire.Card(masked_pan="476173******0119", expiry="2812", track2={"ciphertext": "0" * n})

    empty = len(wire.charge_request(EUR, EntryMode.SWIPE, "r", sized(0)))
    room = wire.PLAINTEXT_LIMIT - empty
    assert len(wire.charge_request(EUR, EntryMode.SWIPE, "r", sized(room))) == 2047
    with pytest.raises(PaymentRefused, match="2048 bytes"):
        wire.charge_request(EUR, EntryMode.SWIPE, "r", sized(room + 1))


def test_the_largest_ordinary_charge_fits():
    sealed = {**SEALED, "ciphertext": "0" * 96, "initialization_vector": "0" * 32, "key_kcv": "0" * 10}
    card = wire.Card(masked_pan="476173*********0119", expiry="2812", sequence="01", track2=sealed)
    pin = {"format": "ISO-4", "block": "0" * 32, "key_kcv": "0" * 10}
    largest = Amount(999_999_999_999, "EUR")
    when = datetime(2025, 1, 1, tzinfo=UTC)
    wire.charge_request(
        largest, EntryMode.SWIPE, "€" * 64, card, fallback=True, pin=pin, tip=largest, offline_approved_at=when
    )


def test_a_refund_has_the_protocols_shape():
    wanted = {"amount": {"value": "1250", "currency": "EUR"}, "reason": "broken cup"}
    assert json.loads(wire.refund_request(EUR, "broken cup")) == wanted


# --- what comes back -------------------------------------------------------------------------------------


def as_bytes(answer: object) -> bytes:
    return json.dumps(answer).encode()


FULL = CHARGE | {"emv": "8A023030", "gateway": {"network": "visa", "rrn": "123"}, "message": "a\tb", "new": [1]}


def test_a_charge_is_read_whole_and_what_we_do_not_know_is_let_through():
    came = payments.charge("pos/charge", as_bytes(FULL))
    assert came.emv == bytes.fromhex("8A023030")
    assert came.gateway == {"network": "visa", "rrn": "123"}
    assert came.message == "a b"
    assert came.created_at == datetime(2025, 12, 13, 14, 25, 30, tzinfo=UTC)


def test_a_zone_is_brought_to_utc():
    came = payments.charge("pos/charge", as_bytes(CHARGE | {"created_at": "2025-12-13T16:25:30+02:00"}))
    assert came.created_at == datetime(2025, 12, 13, 14, 25, 30, tzinfo=UTC)
    assert came.created_at.utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    ("status", "happened"),
    [
        ("approved", Happened.APPROVED),
        ("declined", Happened.DECLINED),
        ("pending", Happened.PENDING),
        ("canceled", Happened.CANCELED),
        ("refunded", Happened.REFUNDED),
        ("partially_refunded", Happened.REFUNDED_IN_PART),
    ],
)
def test_a_charge_in_the_words_of_a_payment(status, happened):
    came = payments.charge("pos/charge", as_bytes(FULL | {"status": status})).as_answer()
    assert (came.happened, came.charge_id, came.amount) == (happened, "ch_abc123def456", EUR)
    assert (came.reference, came.authorization_code, came.response_code) == ("order-17", "A1B2C3", "00")
    assert came.gateway == {"network": "visa", "rrn": "123"}


@pytest.mark.parametrize(
    ("status", "happened"),
    [
        ("approved", Happened.APPROVED),
        ("declined", Happened.DECLINED),
        ("failed", Happened.DECLINED),
        ("pending", Happened.PENDING),
    ],
)
def test_a_refund_in_the_words_of_a_payment(status, happened):
    came = payments.refund("pos/refund", as_bytes(REFUND | {"status": status})).as_answer()
    assert (came.happened, came.charge_id, came.refund_id) == (happened, "ch_abc123def456", "rf_1")
    assert (came.amount, came.reference) == (Amount(500, "EUR"), None)


def test_a_cancel_in_the_words_of_a_payment():
    came = payments.cancel("pos/cancel", as_bytes(CANCEL)).as_answer()
    assert (came.happened, came.charge_id, came.amount) == (Happened.APPROVED, "ch_abc123def456", None)


EARLIEST = "0001-01-01T00:00:00+23:59"


def spoilt(answer: dict, path: str, value: object) -> bytes:
    """The answer with one field replaced, or taken away where the value is ``...``."""
    answer = json.loads(json.dumps(answer))
    *way, last = path.split(".")
    inner = answer
    for name in way:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return as_bytes(answer)


SPOILT = [
    (payments.charge, CHARGE, path, value)
    for path, values in {
        "id": [..., 1, None, "", "ch_", "CH_abc", "rf_abc", "ch_a/b", "ch_a\n", "ch_" + "a" * 65],
        "status": [..., "approved ", "APPROVED", "settled", None, 1],
        "amount": [..., 1250, "12.50", None, []],
        "amount.value": [
            ...,
            1250,
            12.5,
            "",
            "0",
            "-1",
            "+1",
            "012",
            "1.0",
            "1e3",
            " 1",
            "1\n",
            "\u0661",
            "9" * 13,
        ],
        "amount.currency": [..., "eur", "EURO", "XXX", "ZZZ", "€", None, 978],
        "reference": [..., None, 17, "r" * 257],
        "response_code": [..., None, "0 0", "0" * 17, 0],
        "authorization_code": [5, "a b", "a" * 17],
        "emv": ["8", "0x8A", "zz", 5, "00" * 2049],
        "message": [5, "m" * 513],
        "gateway": ["visa", []],
        "gateway.network": [],
        "created_at": [
            ...,
            None,
            0,
            "",
            "yesterday",
            "2025-12-13",
            "2025-12-13T14:25:30",
            "0001-01-01T00:00:00+23:59",
        ],
    }.items()
    for value in values
]
SPOILT += [
    (payments.refund, REFUND, path, value)
    for path, values in {
        "id": [..., "ch_1", "rf_", None],
        "charge_id": [..., "rf_1", None],
        "status": [..., "canceled", None],
        "amount.value": [..., 500, "5.00"],
        "amount.currency": [..., "XTS"],
        "created_at": [..., "now", "9999-12-31T23:59:59-23:59"],
    }.items()
    for value in values
]
SPOILT += [
    (payments.cancel, CANCEL, path, value)
    for path, values in {
        "id": [..., "rf_1"],
        "status": [..., "approved"],
        "canceled_at": [..., "2025-12-13T14:25:30"],
    }.items()
    for value in values
]
SPOILT += [
    (answers.key_set, KEY_SET, path, value)
    for path, values in {
        "key_set": [..., None],
        "key_set.key_set_id": [..., "", "a b", "a\r\nb", "k" * 129],
        "key_set.issued_at": [..., "x"],
        "key_set.expires_at": [..., "2025-12-13T14:25:30Z", "2020-01-01T00:00:00Z"],
        "transport.format": [..., "TR34"],
        "transport.encryption": [..., "AES-128"],
        "keys.mac": [..., None],
        "keys.tpk.key_id": [..., "k\n"],
        "keys.tpk.kcv": [..., "ABCDE", "ABCD", "GGGGGG", "AABBCCDDEEFF", None],
        "keys.tpk.key_block": [..., "", "a", "Zm9v\n", "gICA", "A" * 20_000],
    }.items()
    for value in values
]


@pytest.mark.parametrize(("read", "answer", "path", "value"), SPOILT)
def test_a_wrong_field_is_named_and_not_quoted(read, answer, path, value):
    with pytest.raises(HostAnswerInvalid) as caught:
        read("pos/x", spoilt(answer, path, value))
    assert caught.value.field == path
    assert caught.value.call == "pos/x"
    assert caught.value.__cause__ is None
    if isinstance(value, str) and len(value) > 9:
        assert value not in str(caught.value)


def test_a_wrong_charge_in_a_list_is_named_by_its_place():
    listed = {"charges": [CHARGE, json.loads(spoilt(CHARGE, "amount.currency", "ZZZ"))]}
    with pytest.raises(HostAnswerInvalid) as caught:
        payments.charges("pos/charges", as_bytes(listed))
    assert caught.value.field == "charges[1].amount.currency"
    with pytest.raises(HostAnswerInvalid) as caught:
        payments.charges("pos/charges", as_bytes({"charges": [CHARGE] * 101}))
    assert caught.value.field == "charges"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"a"', b"\xff", b'{"id":"\xff"}', b'{"x":' * 200_000])
def test_what_is_not_an_object_is_no_answer(body):
    with pytest.raises(HostAnswerInvalid) as caught:
        payments.charge("pos/charge", body)
    assert caught.value.field == "body"


def test_a_key_set_is_handed_on_by_role():
    came = answers.key_set("pos/keys", as_bytes(KEY_SET))
    assert set(came.keys) == {Role.TMK, Role.KEK, Role.MSK, Role.TPK, Role.TDK, Role.MAC}
    assert came.expires_at > came.issued_at


# --- anything at all -------------------------------------------------------------------------------------

READERS = {
    "health": answers.health,
    "bootstrap": answers.bootstrap,
    "key_set": answers.key_set,
    "activated": answers.activated,
    "charge": payments.charge,
    "charges": payments.charges,
    "refund": payments.refund,
    "cancel": payments.cancel,
    "heartbeat": answers.heartbeat,
    "pairing_code": lambda call, body: decode(call, answers.PairingCode, body),
    "status": lambda call, body: decode(call, answers.DeviceStatus, body),
    "attested": lambda call, body: decode(call, answers.Attested, body),
    "access_token": lambda call, body: decode(call, answers.AccessToken, body),
    "initiated": lambda call, body: decode(call, answers.SessionInitiated, body),
    "claimed": lambda call, body: decode(call, answers.Claimed, body),
}
SAMPLES = [CHARGE, REFUND, CANCEL, KEY_SET, {"charges": [CHARGE]}]
OTHERS = {"value", "currency", "actions", "server_time", "error", "code", "message"}
NAMES = st.sampled_from(sorted(OTHERS.union(*SAMPLES)))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["approved", "EUR", "ok", "ch_1", "1250", "activated", "TR31"])
    | st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat())
)


def _nested(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=6)


JSON = st.recursive(LEAVES, _nested, max_leaves=20)


@st.composite
def nearly(draw) -> bytes:
    """A good answer with one thing in it replaced."""
    answer = json.loads(json.dumps(draw(st.sampled_from(SAMPLES))))
    inner = answer
    while True:
        place = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if isinstance(inner[place], dict | list) and inner[place] and draw(st.booleans()):
            inner = inner[place]
            continue
        inner[place] = draw(JSON)
        return json.dumps(answer).encode()


ANYTHING = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()) | nearly()


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@given(body=ANYTHING)
def test_a_reader_gives_a_value_or_names_a_field(read, body):
    try:
        read("pos/x", body)
    except HostAnswerInvalid as error:
        wrong = error
    else:
        return
    assert wrong.field
    assert str(wrong).isprintable()


ERRORS = st.fixed_dictionaries({"error": st.fixed_dictionaries({"code": JSON, "message": JSON, "trace_id": JSON})})


@given(body=ANYTHING | ERRORS.map(as_bytes))
def test_a_refusal_is_read_or_is_none(body):
    came = refusal("pos/x", 400, body, None)
    assert came is None or (isinstance(came, HostRefused) and len(str(came)) < 400 and str(came).isprintable())


def test_the_wire_knows_no_http():
    program = (
        "import sys, terminal.hosts.viopay_wire, terminal.hosts.viopay_answers, "
        "terminal.hosts.viopay_payments, terminal.hosts.viopay_refusals;"
        "sys.exit('httpx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
