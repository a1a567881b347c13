"""The fuzzer's targets without the fuzzer: they hold for some inputs, and see what is planted."""

from __future__ import annotations

import sys
from random import Random

import pytest

import hw.reader
from hw.errors import FramingError
from hw.wire import Wire
from tests.fuzz.__main__ import DRIVERS, main
from tests.fuzz.line import Script
from tests.fuzz.targets import TARGETS, framed, one_input

SIZES = (0, 1, 9, 60, 200)


@pytest.mark.parametrize("name", TARGETS)
def test_a_driver_holds_for_a_few_inputs(name):
    opener = hw.reader.open_link
    target = TARGETS[name]
    for number, size in enumerate(SIZES):
        one_input(target, Random(number).randbytes(size))
    for choice in range(len(target.urls)):
        one_input(target, bytes((choice | 0x80,)))
    assert hw.reader.open_link is opener


@pytest.mark.parametrize("name", TARGETS)
def test_a_line_that_is_pulled_is_plugged_in_again(name):
    one_input(TARGETS[name], b"\0\x0d\x0d")


@pytest.mark.parametrize("name", [name for name in TARGETS if not name.startswith("magstripe")])
def test_an_error_that_is_none_of_ours_is_found(monkeypatch, name):
    receive = Wire.receive

    async def planted(self, *asked, **how):
        frame = await receive(self, *asked, **how)
        if 0x5A in frame:
            raise IndexError("planted")
        return frame

    monkeypatch.setattr(Wire, "receive", planted)
    with pytest.raises(IndexError, match="planted"):
        one_input(TARGETS[name], b"\0" + b"\x04\x01\x5a" * 20)


def test_a_driver_that_stays_out_of_step_is_found(monkeypatch):
    receive = Wire.receive
    broken = False

    async def planted(self, *asked, **how):
        nonlocal broken
        frame = await receive(self, *asked, **how)
        broken = broken or self.counts.dropped > 0
        if broken:
            raise FramingError("out of step for ever")
        return frame

    monkeypatch.setattr(Wire, "receive", planted)
    with pytest.raises(FramingError, match="for ever"):
        one_input(TARGETS["pn532"], b"\0\x02\x04\x01\x02\x03\x04")


def test_a_framer_that_holds_everything_is_found(monkeypatch):
    target = TARGETS["magstripe"]
    monkeypatch.setattr("tests.fuzz.targets.HELD", 100)
    with pytest.raises(AssertionError):
        framed(target, b";" + b"1" * 150)
    framed(target, b";" + b"1" * 50)


def test_a_script_is_taken_byte_by_byte_and_then_says_nothing():
    script = Script(b"\x01\x02ab\x05cd")
    assert (script.byte(), script.text(), script.over) == (1, b"ab", False)
    assert (script.text(), script.over, script.byte(), script.text()) == (b"cd", True, 0, b"")


def test_the_command_knows_the_names_of_the_targets(monkeypatch, tmp_path, capsys):
    assert set(DRIVERS) == set(TARGETS)
    monkeypatch.setattr(sys, "argv", ["fuzz", "pn53", "--corpus", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "vivopay-apdu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_the_fuzzer_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["fuzz", "pn532", "--corpus", str(tmp_path)])
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(SystemExit, match="pip install atheris"):
        main()
