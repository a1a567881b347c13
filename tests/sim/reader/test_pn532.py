"""The emulated PN532: published commands and answers, sleep and speed, and the block protocol of its cards."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from hw import pn532_frames as frames
from hw.pn532_frames import ACK, ERROR, NACK, WAKE_UP, Framer
from hw.pn532_targets import TYPE_B
from sim.reader.iso_dep import BlockCard
from sim.reader.memory import MemoryLine
from sim.reader.pn532 import Fault, Pn532Emulator
from sim.reader.pn532_chip import Chip
from sim.virtual_time import run
from tests.hw.pn532s import FCI, PPSE, Plastic

PAIRS = [  # a command, and its published answer
    ("0000FF03FDD414011700", "0000FF02FED5151600"),
    ("0000FF02FED4022A00", "0000FF06FAD50332010607E800"),
    ("0000FFFFFF0002FED4022A00", "0000FF06FAD50332010607E800"),
    ("0000FF05FBD4140100001700", "0000FF02FED5151600"),
    ("0000FF05FBD4140114010200", "0000FF02FED5151600"),
    ("0000FF09F7D400006C69626E6663BE00", "0000FF09F7D501006C69626E6663BC00"),
    ("0000FF03FDD412140600", "0000FF02FED5131800"),
    ("0000FF04FCD4320100F900", "0000FF02FED533F800"),
    ("0000FF04FCD4320101F800", "0000FF02FED533F800"),
    ("0000FF06FAD43202000B0AE300", "0000FF02FED533F800"),
    ("0000FF06FAD43205000102F200", "0000FF02FED533F800"),
    ("0000FF06FAD43205FFFFFFF800", "0000FF02FED533F800"),
    ("0000FF09F7D44A010100FFFF0000E200", "0000FF03FDD54B00E000"),
    ("0000FF05FBD44A010300DE00", "0000FF03FDD54B00E000"),
    ("0000FF04FCD44A0100E100", "0000FF11EFD54B010100042004080102030578807000" + "3B00"),
    (
        "0000FF17E9D4400100A404000E325041592E5359532E44444630310" + "08F00",
        "0000FF33CDD54100" + FCI.hex() + "EB00",
    ),
    ("0000FF03FDD44400E800", "0000FF03FDD54500E600"),
    ("0000FF03FDD45200DA00", "0000FF03FDD55300D800"),
    ("0000FF03FDD410071500", "0000FF02FED5111A00"),
    ("0000FF03FDD416F02600", "0000FF03FDD517001400"),
]


async def woken(line: MemoryLine, emulator: Pn532Emulator):
    """A host's end at a chip that is awake, and what runs the chip."""
    running = asyncio.create_task(emulator.run())
    link, framer = line.link, Framer()

    async def ask(frame: bytes, count: int = 2) -> list[bytes]:
        await link.write(frame)
        found: list[bytes] = []
        while len(found) < count:
            found += framer.feed(await link.read())
        return found

    assert await ask(WAKE_UP + frames.command(frames.SAM_CONFIGURATION, b"\1")) == [
        ACK,
        frames.answer(frames.SAM_CONFIGURATION),
    ]
    return link, ask, running


def test_published_commands_have_their_published_answers():
    async def main():
        line = MemoryLine()
        emulator = Pn532Emulator(line)
        emulator.tap(Plastic())
        _, ask, running = await woken(line, emulator)
        for command, answer in PAIRS:
            assert await ask(bytes.fromhex(command)) == [ACK, bytes.fromhex(answer)], command
        await line.close()
        await running

    run(main())


def test_it_sleeps_until_the_line_moves():
    async def main():
        line = MemoryLine()
        emulator = Pn532Emulator(line)
        running = asyncio.create_task(emulator.run())
        await line.link.write(frames.command(frames.GET_FIRMWARE_VERSION))
        await asyncio.sleep(1)
        assert not emulator.heard
        await line.link.write(frames.command(frames.GET_FIRMWARE_VERSION))
        await asyncio.sleep(1)
        assert len(emulator.heard) == 1
        await line.close()
        await running

    run(main())


def test_it_repeats_refuses_and_calls_off():
    async def main():
        line = MemoryLine()
        emulator = Pn532Emulator(line)
        link, ask, running = await woken(line, emulator)
        status = frames.answer(frames.GET_GENERAL_STATUS, b"\0\0\0\0")
        assert await ask(frames.command(frames.GET_GENERAL_STATUS)) == [ACK, status]
        assert await ask(NACK, 1) == [status]
        for unknown in (
            frames.command(0x98),
            frames.command(frames.SET_PARAMETERS),
            frames.command(frames.IN_SELECT),
        ):
            assert await ask(unknown) == [ACK, ERROR]
        emulator.misbehave(Fault.SLOW_CARD)
        assert await ask(frames.command(frames.GET_FIRMWARE_VERSION), 1) == [ACK]
        await link.write(ACK)
        await asyncio.sleep(2 * emulator.slowness)
        assert link.take() == b""
        await line.close()
        await running

    run(main())


def test_at_another_speed_it_hears_noise():
    async def main():
        line = MemoryLine()
        emulator = Pn532Emulator(line)
        link, ask, running = await woken(line, emulator)
        await ask(frames.command(frames.SET_SERIAL_BAUD_RATE, b"\7"))
        assert (emulator.chip.baud, emulator.chip.next_baud) == (115200, 921600)
        await link.write(ACK)
        await asyncio.sleep(0.1)
        assert emulator.chip.baud == 921600
        await link.write(frames.command(frames.GET_FIRMWARE_VERSION))
        await asyncio.sleep(0.1)
        assert link.take() == b""
        await link.change_baud(921600)
        assert len(await ask(frames.command(frames.GET_FIRMWARE_VERSION))) == 2
        await line.close()
        await running

    run(main())


def told(chip: Chip, code: int, data: str = "") -> str:
    said = asyncio.run(chip.obey(code, bytes.fromhex(data)))
    return "refused" if said is None else said.hex()


def test_a_card_is_called_once_while_the_field_is_on():
    chip = Chip()
    chip.tap(Plastic())
    listed = told(chip, frames.IN_LIST_PASSIVE_TARGET, "0100")
    assert listed.startswith("0101")
    assert told(chip, frames.IN_LIST_PASSIVE_TARGET, "0100") == "00"
    assert told(chip, frames.RF_CONFIGURATION, "0100") == ""
    assert told(chip, frames.IN_LIST_PASSIVE_TARGET, "0100") == listed
    assert told(chip, frames.GET_GENERAL_STATUS) == "00" + "01" + "01" + "01000010" + "00"
    assert told(chip, frames.DIAGNOSE, "06") == "00"
    assert told(chip, frames.IN_DATA_EXCHANGE, "02" + PPSE.hex()) == "27"
    chip.cards.clear()
    assert told(chip, frames.DIAGNOSE, "06") == "01"
    assert told(chip, frames.IN_DATA_EXCHANGE, "01" + PPSE.hex()) == "01"


def test_without_auto_rats_the_ats_is_the_host_s_to_ask_for():
    chip = Chip()
    chip.tap(Plastic())
    told(chip, frames.SET_PARAMETERS, "00")
    assert told(chip, frames.IN_LIST_PASSIVE_TARGET, "0100") == "0101" + "0004" + "20" + "0408010203"
    assert told(chip, frames.IN_COMMUNICATE_THRU, "e080") == "00" + "0578807000"


def test_registers_keep_what_was_written():
    chip = Chip()
    assert told(chip, frames.READ_REGISTER, "6302") == "00"
    assert told(chip, frames.WRITE_REGISTER, "630280630385") == ""
    assert told(chip, frames.READ_REGISTER, "63026303") == "8085"
    assert told(chip, frames.READ_REGISTER, "6339") == "26"


def test_a_card_of_type_b_is_called_woken_and_taken():
    chip = Chip()
    chip.tap(Plastic(uid=b"\x11\x22\x33\x44"), TYPE_B)
    assert told(chip, frames.IN_LIST_PASSIVE_TARGET, "0100") == "00"
    assert told(chip, frames.IN_LIST_PASSIVE_TARGET, "010300") == "01015011223344000000000081710100"
    assert told(chip, frames.IN_COMMUNICATE_THRU, "ca01") == "00ca01"
    assert told(chip, frames.IN_COMMUNICATE_THRU, "050008") == "00501122334400000000008171"
    assert told(chip, frames.IN_COMMUNICATE_THRU, "1d1122334400080100") == "0000"
    assert told(chip, frames.IN_COMMUNICATE_THRU, "02" + PPSE.hex()) == "0002" + FCI.hex()


def test_the_frames_of_two_types_do_not_mix():
    chip = Chip()
    chip.tap(Plastic())
    assert told(chip, frames.IN_LIST_PASSIVE_TARGET, "010300") == "00"


async def exchanged(card: BlockCard, command: bytes, room: int, spoil: list[bool]) -> bytes:
    """A command in blocks by the reader's rules (ISO/IEC 14443-4, 7.5.4); what is spoiled is asked for again."""

    async def say(block: bytes) -> bytes:
        answer = await card.answer(block)
        while spoil and spoil.pop():
            answer = await card.answer(bytes((0xB2 | number,)))
        return answer

    number, answer = 0, b""
    for at in range(0, len(command), room):
        more = at + room < len(command)
        answer = await say(bytes((0x02 | more << 4 | number,)) + command[at : at + room])
        assert answer[0] & 1 == number
        if more:
            assert answer == bytes((0xA2 | number,))
            number ^= 1
    response = answer[1:]
    while answer[0] & 0x10:
        number ^= 1
        answer = await say(bytes((0xA2 | number,)))
        assert answer[0] & 1 == number
        response += answer[1:]
    return response


@given(
    st.binary(min_size=4, max_size=700),
    st.binary(min_size=2, max_size=700),
    st.integers(1, 250),
    st.integers(0, 8),
    st.lists(st.booleans(), max_size=20),
)
def test_any_command_and_answer_go_through_in_blocks_each_once(command, response, room, size, spoil):
    async def main():
        asked = []

        async def transmit(apdu: bytes) -> bytes:
            asked.append(apdu)
            return response

        card = BlockCard(transmit, bytes.fromhex("0578807000"))
        assert await card.answer(bytes((0xE0, size << 4))) == bytes.fromhex("0578807000")
        assert await exchanged(card, command, room, list(spoil)) == response
        assert asked == [command]
        assert await card.answer(b"\xc2") == b"\xc2"

    asyncio.run(main())


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_blocks_are_answered_or_not(blocks):
    async def main():
        async def transmit(_: bytes) -> bytes:
            return b"\x6d\x00"

        card = BlockCard(transmit, b"\x02\x78")
        for block in blocks:
            assert isinstance(await card.answer(block), bytes)

    asyncio.run(main())
