from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from terminal.cli import prompts
from terminal.cli.entry import main
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.vault import Passphrase, Vault
from terminal.errors import KeystoreError
from terminal.settings import Settings
from tests.terminal.cli.conftest import NOBODY
from tests.terminal.cli.typist import Typist

PASSPHRASE = "correct canary battery staple"
FIRST, SECOND = bytes(range(32)), bytes(range(100, 132))
WHOLE = bytes(a ^ b for a, b in zip(FIRST, SECOND, strict=True))

Run = Callable[..., Typist]


@pytest.fixture
def device(tmp_path: Path, document: dict[str, Any]) -> Path:
    """The document of a real host: without a ZMK."""
    del document["zmk"]
    path = tmp_path / "device.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def provisioning(tmp_path: Path, device: Path) -> Run:
    """``till provision`` at a terminal, for a host that is not on this machine."""

    def run(*words: str, **env: str) -> Typist:
        home = ("--home", str(tmp_path / "new"))
        return Typist("provision", "--from", str(device), "--host", "https://pos.example", *words, *home, env=env)

    return run


def test_a_passphrase_and_a_ceremony_are_typed_and_not_seen(provisioning: Run, tmp_path: Path) -> None:
    somebody = provisioning("--zmk-components", "2")
    somebody.answer("New passphrase: ", PASSPHRASE)
    somebody.answer("The same again: ", PASSPHRASE)
    for number, component in enumerate((FIRST, SECOND), 1):
        text = component.hex().upper()
        grouped = " ".join(text[place : place + 4] for place in range(0, 64, 4))
        somebody.answer(rf"Component {number} .*: ", grouped)
        somebody.answer(rf"KCV of component {number}: ", aes_kcv(component))
        somebody.wait_for(rf"component {number}: its check value matches")
    somebody.answer("KCV of the whole ZMK: ", aes_kcv(WHOLE))
    assert somebody.leave() == 0, somebody.seen
    assert "POS-8F3A2C91 (TID-004812) is provisioned" in somebody.seen
    assert aes_kcv(FIRST) in somebody.seen  # what may be seen is echoed: the test can tell
    for secret in (PASSPHRASE, "canary"):
        assert secret not in somebody.seen
    shown = "".join(somebody.seen.split()).upper()
    for component in (FIRST, SECOND, WHOLE):
        assert not any(component.hex().upper()[place : place + 8] in shown for place in range(0, 64, 4))
    vault = tmp_path / "new" / "vault"
    with Vault.open(vault, Passphrase(PASSPHRASE), random=os.urandom) as opened:
        assert WHOLE in (opened.get("zmk") or b"")


def test_a_component_that_was_mistyped_is_asked_for_again(provisioning: Run, credentials: Path) -> None:
    somebody = provisioning("--zmk-components", "2", "--credentials", str(credentials))
    somebody.answer("Component 1 .*: ", FIRST.hex())
    somebody.answer("KCV of component 1: ", aes_kcv(SECOND))
    somebody.wait_for("component 1: its check value does not match")
    somebody.answer("Component 1 .*: ", aes_kcv(FIRST))
    somebody.wait_for("component 1: it must have 32 bytes")
    somebody.answer("Component 1 .*: ", FIRST.hex())
    somebody.answer("KCV of component 1: ", aes_kcv(FIRST))
    somebody.answer("Component 2 .*: ", SECOND.hex())
    somebody.answer("KCV of component 2: ", aes_kcv(SECOND))
    somebody.answer("KCV of the whole ZMK: ", aes_kcv(FIRST))
    somebody.wait_for("the check value of the whole does not match")
    somebody.answer("KCV of the whole ZMK: ", aes_kcv(WHOLE))
    assert somebody.leave() == 0, somebody.seen


def test_three_mistakes_end_the_ceremony_and_install_nothing(
    provisioning: Run, credentials: Path, tmp_path: Path
) -> None:
    somebody = provisioning("--zmk-components", "2", "--credentials", str(credentials))
    for _ in range(3):
        somebody.answer("Component 1 .*: ", FIRST.hex())
        somebody.answer("KCV of component 1: ", aes_kcv(SECOND))
    assert somebody.leave() == 2
    assert "till: component 1: its check value does not match" in somebody.seen
    assert not (tmp_path / "new").exists()


def test_one_sheet_entered_twice_is_refused_at_once(provisioning: Run, credentials: Path) -> None:
    somebody = provisioning("--zmk-components", "2", "--credentials", str(credentials))
    somebody.answer("Component 1 .*: ", FIRST.hex())
    somebody.answer("KCV of component 1: ", aes_kcv(FIRST))
    somebody.answer("Component 2 .*: ", FIRST.hex())
    somebody.wait_for("component 2: it equals component 1")
    somebody.answer("Component 2 .*: ", SECOND.hex())
    somebody.answer("KCV of component 2: ", aes_kcv(SECOND))
    somebody.answer("KCV of the whole ZMK: ", aes_kcv(WHOLE))
    assert somebody.leave() == 0, somebody.seen


def test_what_was_typed_is_in_no_frame_of_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter([*[FIRST.hex()] * 3, PASSPHRASE, "another"])
    monkeypatch.delenv("TILL_PASSPHRASE", raising=False)
    monkeypatch.setattr(prompts, "ask_hidden", lambda *_, **__: next(typed))
    monkeypatch.setattr(prompts, "ask", lambda *_, **__: "000000")
    for fails in (lambda: prompts.ceremony(2), lambda: prompts.new_secret(Settings())):
        with pytest.raises(KeystoreError) as caught:
            fails()
        shown = [
            repr(value)
            for frame, _ in traceback.walk_tb(caught.value.__traceback__)
            if frame.f_code.co_filename != __file__
            for value in frame.f_locals.values()
        ]
        assert shown
        assert not any(FIRST.hex() in value or repr(FIRST) in value or PASSPHRASE in value for value in shown)


def test_two_passphrases_that_differ_make_no_keystore(provisioning: Run, tmp_path: Path) -> None:
    somebody = provisioning("--zmk-components", "2")
    somebody.answer("New passphrase: ", PASSPHRASE)
    somebody.answer("The same again: ", "another")
    assert somebody.leave() == 2
    assert "the two passphrases differ" in somebody.seen
    assert PASSPHRASE not in somebody.seen
    assert not (tmp_path / "new").exists()


def test_ctrl_c_at_a_prompt_ends_it(provisioning: Run) -> None:
    somebody = provisioning("--zmk-components", "2")
    somebody.wait_for("New passphrase: ")
    somebody.press("\x03")
    assert somebody.leave() == 130
    assert "interrupted" in somebody.seen


def test_the_end_of_the_input_is_no_answer(provisioning: Run) -> None:
    somebody = provisioning("--zmk-components", "2")
    somebody.wait_for("New passphrase: ")
    somebody.press("\x04")
    assert somebody.leave() == 2
    assert "it was not given" in somebody.seen


def test_a_keystore_is_opened_by_the_passphrase_that_made_it(tmp_path: Path, document: dict[str, Any]) -> None:
    device, home = tmp_path / "device.json", tmp_path / "new"
    device.write_text(json.dumps(document))
    somebody = Typist("--home", str(home), "provision", "--from", str(device), "--host", NOBODY)
    somebody.answer("New passphrase: ", PASSPHRASE)
    somebody.answer("The same again: ", PASSPHRASE)
    assert somebody.leave() == 0, somebody.seen
    somebody = Typist("keys", "--home", str(home))
    somebody.answer("Passphrase: ", PASSPHRASE)
    assert somebody.leave() == 0, somebody.seen
    assert document["zmk"]["kcv"] in somebody.seen
    somebody = Typist("keys", "--home", str(home))
    somebody.answer("Passphrase: ", PASSPHRASE.upper())
    assert somebody.leave() == 2
    assert "does not open" in somebody.seen
    somebody = Typist("keys", "--home", str(home), env={"TILL_PASSPHRASE": PASSPHRASE})
    assert somebody.leave() == 0, somebody.seen
    assert PASSPHRASE not in somebody.seen


# -- nobody at the keys -----------------------------------------------------------------------------------------


def test_without_a_terminal_nothing_is_asked_for(
    device: Path, tmp_path: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--home", str(tmp_path / "new"), "provision", "--from", str(device), "--host", "https://pos.example"]
    assert main(words) == 2
    assert "TILL_PASSPHRASE" in capsys.readouterr().err
    assert main([*words, "--zmk-components", "2", "--credentials", str(credentials)]) == 2
    assert "Component 1" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_without_a_terminal_a_passphrase_has_to_be_set(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (home / "settings.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("credentials_file")]
    (home / "settings.toml").write_text("\n".join(lines))
    assert main(["keys", "--home", str(home)]) == 2
    assert "TILL_PASSPHRASE" in capsys.readouterr().err
    monkeypatch.setenv("TILL_PASSPHRASE", "another")
    assert main(["keys", "--home", str(home)]) == 2
    assert "another" not in capsys.readouterr().err.replace("is another,", "").replace("made with", "")
