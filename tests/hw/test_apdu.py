"""Command and response APDUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.apdu import Command, Response, follow_up
from hw.errors import CardError, ProtocolError

BYTE = st.integers(0, 255)
COMMANDS = st.builds(
    Command,
    BYTE,
    BYTE,
    BYTE,
    BYTE,
    st.binary(max_size=300),
    st.none() | st.integers(1, 256) | st.sampled_from([257, 4096, 65_535, 65_536]),
)


@pytest.mark.parametrize(
    ("command", "encoded"),
    [
        (Command(0x00, 0xB2, 0x01, 0x0C), "00b2010c"),  # case 1
        (Command(0x00, 0xB2, 0x01, 0x0C, le=256), "00b2010c00"),  # case 2
        (Command(0x00, 0xA4, 0x04, 0x00, bytes.fromhex("a000000003")), "00a4040005a000000003"),  # case 3
        (
            Command(0x00, 0xA4, 0x04, 0x00, b"2PAY.SYS.DDF01", 256),
            "00a404000e325041592e5359532e444446303100",
        ),  # case 4: SELECT PPSE, EMV Contactless Book B
        (Command(0x00, 0xB0, 0, 0, le=65_536), "00b00000000000"),  # case 2 extended
        (Command(0x00, 0xD6, 0, 0, bytes(256)), "00d60000000100" + "00" * 256),  # case 3 extended
        (Command(0x00, 0xD6, 0, 0, b"\1", 257), "00d600000000010101" + "01"),  # case 4 extended
    ],
)
def test_the_cases_of_iso_7816(command, encoded):
    assert command.encode().hex() == encoded
    assert Command.decode(bytes.fromhex(encoded)) == command


@given(COMMANDS)
def test_a_command_survives_its_encoding(command):
    assert Command.decode(command.encode()) == command


@given(st.binary(max_size=64))
def test_any_bytes_are_a_command_or_a_protocol_error(data):
    try:
        command = Command.decode(data)
    except ProtocolError:
        return
    assert Command.decode(command.encode()) == command


@given(st.binary(max_size=64))
def test_any_bytes_are_a_response_or_a_card_error(data):
    if len(data) < 2:
        with pytest.raises(CardError):
            Response.decode(data)
    else:
        assert Response.decode(data).encode() == data


def test_a_repr_shows_no_data():
    assert "1234" not in repr(Command(0, 0xB2, data=b"\x12\x34")) + repr(Response(b"\x12\x34", 0x9000))


def test_what_is_no_command_is_refused():
    with pytest.raises(ProtocolError):
        Command(0x100, 0)
    with pytest.raises(ProtocolError):
        Command(0, 0, le=0)
    with pytest.raises(ProtocolError):
        Command(0, 0, data=bytes(65_536))


def test_more_to_come_and_a_wrong_length():
    select = Command(0x00, 0xA4, 0x04, 0x00, b"\xa0\0\0\0\3", 256)
    assert follow_up(select, Response(b"", 0x612E)) == Command(0x00, 0xC0, le=0x2E)
    assert follow_up(select, Response(b"", 0x6100)) == Command(0x00, 0xC0, le=256)
    assert follow_up(Command(0x00, 0xB2, 1, 0x0C, le=256), Response(b"", 0x6C1A)) == Command(
        0x00, 0xB2, 1, 0x0C, le=0x1A
    )
    assert follow_up(select, Response(b"", 0x9000)) is None
