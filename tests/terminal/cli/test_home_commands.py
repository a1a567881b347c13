from __future__ import annotations

import io
import json
import os
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from terminal.cli.entry import main
from terminal.crypto.vault import CredentialFile, Vault
from terminal.journal import Journal, SealedRequest
from terminal.money import Amount
from terminal.payment import Happened, Kind, Payment
from tests.terminal.cli.conftest import NOBODY

AT = datetime(2025, 12, 13, 14, 25, 30, tzinfo=UTC)


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def book(home: Path) -> Path:
    """A home whose journal holds an approved charge and one in doubt."""
    journal = Journal.open(home / "journal.db")
    first = Payment(
        id="p1",
        kind=Kind.CHARGE,
        reference="order-17",
        amount=Amount(1250, "EUR"),
        created_at=AT,
        entry_mode="swipe",
        masked_pan="476173******0119",
    )
    journal.begin(first, SealedRequest("ks_1", b"{}"))
    journal.record("p1", Happened.APPROVED, AT, charge_id="ch_1", approved=Amount(1250, "EUR"), response_code="00")
    journal.begin(replace(first, id="p2", reference="order-18"), SealedRequest("ks_1", b"{}"))
    journal.record("p2", Happened.SILENT, AT)
    journal.close()
    return home


# -- provision --------------------------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path, document: dict[str, Any]) -> Path:
    path = tmp_path / "device.json"
    path.write_text(json.dumps(document))
    return path


def test_provision(
    tmp_path: Path, device: Path, credentials: Path, document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "new"
    words = ["--json", "provision", "--from", str(device), "--host", NOBODY, "--home", str(home)]
    assert main([*words, "--credentials", str(credentials), "--reader", "magstripe:///dev/ttyUSB0"]) == 0
    assert told(capsys) == [
        {
            "event": "result",
            "level": "provisioned",
            "device_id": "POS-8F3A2C91",
            "terminal_id": "TID-004812",
            "host": NOBODY,
            "home": str(home),
            "exit_code": 0,
        }
    ]
    assert main(["status", "--json", "--home", str(home)]) == 0
    (status,) = told(capsys)
    assert (status["level"], status["host"], status["reader"]) == (
        "provisioned",
        NOBODY,
        "magstripe:///dev/ttyUSB0",
    )
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    for secret in (document["zmk"]["key"], document["identity"]["secret"]):
        assert secret.encode() not in written


def test_provision_from_stdin(
    tmp_path: Path,
    document: dict[str, Any],
    credentials: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(document).encode())))
    words = ["provision", "--from", "-", "--host", NOBODY, "--home", str(tmp_path / "new")]
    assert main([*words, "--credentials", str(credentials)]) == 0
    assert "Next: till activate" in capsys.readouterr().out


def test_the_credentials_file_is_found_from_any_folder(
    tmp_path: Path, device: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = str(tmp_path / "new")
    words = ["provision", "--from", str(device), "--host", NOBODY, "--home", home]
    assert main([*words, "--credentials", credentials.name]) == 0
    monkeypatch.chdir("/")
    assert main(["keys", "--home", home]) == 0


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({}, ["--host", "http://pos.example"], "plain http"),
        ({}, ["--host", "https://pos.example"], "--zmk-components"),
        ({"zmk": None}, ["--host", NOBODY], "holds no ZMK"),
        ({"device_id": 17}, ["--host", NOBODY], "device_id"),
        ({"identity": {"key_id": "x", "secret": "canary horse"}}, ["--host", NOBODY], "not base64"),
    ],
)
def test_provision_refuses(
    change: dict[str, Any],
    words: list[str],
    message: str,
    tmp_path: Path,
    document: dict[str, Any],
    credentials: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "device.json"
    path.write_text(json.dumps(document | change))
    home = ["--home", str(tmp_path / "new"), "--credentials", str(credentials)]
    assert main(["provision", "--from", str(path), *words, *home]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "canary" not in err
    assert not (tmp_path / "new" / "vault").exists()


def test_provision_refuses_a_document_without_end(
    tmp_path: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "device.json"
    path.write_bytes(b" " * 70_000)
    assert main(["provision", "--from", str(path), "--host", NOBODY, "--home", str(tmp_path / "new")]) == 2
    assert "longer than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--reader", "/dev/ttyUSB0"], 5, "a reader's URL begins with its driver"),
        (["--reader", "punchcard:///dev/ttyUSB0"], 5, "there is no driver named 'punchcard'"),
        (["--credentials", "nowhere"], 2, "there is no 'nowhere'"),
    ],
)
def test_provision_makes_nothing_with_a_reader_or_a_secret_that_is_none(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    device: Path,
    credentials: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["provision", "--from", str(device), "--host", NOBODY, "--home", str(tmp_path / "new")]
    assert main([*asked, "--credentials", str(credentials), *words]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_document_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "README.md"
    path.write_text("# canary horse")
    assert main(["provision", "--from", str(path), "--host", NOBODY, "--home", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"till: {path}: the device document is not JSON\n      Give --from the file ")
    assert "canary" not in err


def test_provision_leaves_a_terminal_alone(home: Path, device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "vault").read_bytes()
    assert main(["provision", "--from", str(device), "--host", NOBODY, "--home", str(home)]) == 2
    assert "holds a terminal already" in capsys.readouterr().err
    assert (home / "vault").read_bytes() == before


# -- status -----------------------------------------------------------------------------------------------------


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--home", str(tmp_path / "nowhere")]) == 0
    assert "unprovisioned" in capsys.readouterr().out
    assert not (tmp_path / "nowhere").exists()


def test_status_while_the_terminal_is_in_use(
    book: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Vault.open(book / "vault", CredentialFile(credentials), random=bytes):
        assert main(["status", "--json", "--home", str(book)]) == 0
    (status,) = told(capsys)
    assert status["device_id"] == "POS-8F3A2C91"
    assert [payment["reference"] for payment in status["unresolved"]] == ["order-18"]
    assert status["offline"] == {"count": 0, "total": [], "oldest": None}


def test_status_counts_in_words_and_shows_what_waits_for_the_host(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal.open(book / "journal.db")
    stored = Payment(id="p3", kind=Kind.CHARGE, reference="order-19", amount=Amount(700, "EUR"), created_at=AT)
    journal.begin(stored, SealedRequest("ks_1", b"{}"))
    journal.record("p3", Happened.STORED, AT, request=SealedRequest("ks_1", b"{}"))
    journal.record("p2", Happened.DECLINED, AT)
    journal.close()
    assert main(["status", "--home", str(book)]) == 0
    out = capsys.readouterr().out
    assert "1 payment: till journal --open" in out
    assert "1 approval of EUR 7.00 since 2025-12-13T14:25:30Z" in out


def test_status_tells_when_the_keys_are_renewed(
    home: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def renewed(**facts: str) -> str:
        with (
            Vault.open(home / "vault", CredentialFile(credentials), random=os.urandom) as vault,
            vault.change() as draft,
        ):
            draft.facts |= {"key_set_id": "ks_1"} | facts
        assert main(["status", "--json", "--home", str(home)]) == 0
        (status,) = told(capsys)
        return str(status["key_set_renew_at"])

    assert renewed(key_set_expires_at="2999-01-02T00:00:00Z") == "2999-01-01T23:00:00Z"
    assert renewed(key_set_issued_at="2999-01-01T23:00:00Z") == "2999-01-01T23:30:00Z"


@pytest.mark.parametrize(
    ("expires_at", "words"), [("2999-01-01T00:00:00Z", "ks_1 until 2999"), ("2020-01-01T00:00:00Z", "ks_1 expired")]
)
def test_status_tells_when_the_keys_expire(
    home: Path, credentials: Path, expires_at: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    with (
        Vault.open(home / "vault", CredentialFile(credentials), random=os.urandom) as vault,
        vault.change() as draft,
    ):
        draft.facts |= {"key_set_id": "ks_1", "key_set_expires_at": expires_at}
    assert main(["status", "--home", str(home)]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("name", ["vault", "settings.toml", "journal.db"])
def test_status_of_a_damaged_home(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (home / name).write_bytes(b"\xff{nothing of ours" * 100)
    assert main(["status", "--home", str(home), "--json"]) == 2
    (error,) = told(capsys)
    assert name in error["message"]


# -- journal ----------------------------------------------------------------------------------------------------


def test_journal(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "--verify", "--home", str(book)]) == 0
    out = capsys.readouterr().out
    assert "EUR 12.50  approved  order-17   476173******0119  ch_1" in out
    assert "in doubt" in out
    assert "4 records, each bound to the one before" in out
    assert "POS-8F3A2C91 (TID-004812)" in out


def test_another_terminals_journal_is_not_whole_here(
    book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("journal.db", "journal.keys"):
        (book / name).unlink()
    Journal.create(book / "journal.db", "another").close()
    assert main(["journal", "--verify", "--home", str(book)]) == 2
    assert "another terminal's" in capsys.readouterr().err


def test_an_old_copy_of_the_journal_is_not_whole(
    book: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        Vault.open(book / "vault", CredentialFile(credentials), random=os.urandom) as vault,
        vault.change() as draft,
    ):
        draft.facts["journal_seq"] = "5"
    assert main(["journal", "--verify", "--home", str(book)]) == 2
    assert "an old copy" in capsys.readouterr().err


def break_record(book: Path, seq: int) -> None:
    db = sqlite3.connect(book / "journal.db", isolation_level=None)
    db.execute("DROP TRIGGER records_stand")
    db.execute("UPDATE records SET facts = ? WHERE seq = ?", (b'{"note":"x"}', seq))
    db.close()


def test_a_damaged_journal_is_set_aside_whole(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    break_record(book, 4)
    assert main(["journal", "--verify", "--home", str(book)]) == 2
    assert "--set-aside" in capsys.readouterr().err
    assert main(["journal", "--set-aside", "--open", "--home", str(book)]) == 2
    assert capsys.readouterr().out == ""
    assert main(["journal", "--set-aside", "--json", "--home", str(book)]) == 0
    (result,) = told(capsys)
    assert (result["records"], result["breaks_at"], result["payments"]) == (3, 4, 2)
    assert [payment["id"] for payment in result["unresolved"]] == ["p2"]
    assert all(Path(path).exists() for path in [*result["moved"], result["report"]])
    assert main(["journal", "--verify", "--home", str(book)]) == 0
    assert "ch_1" in capsys.readouterr().out


def test_setting_aside_says_what_is_carried_on_and_what_to_look_at(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_record(book, 2)
    assert main(["journal", "--set-aside", "--home", str(book)]) == 0
    out = capsys.readouterr().out
    assert "set aside: " in out
    assert "1 record proved, up to record 2" in out
    assert "the new journal begins with 1 payment of it" in out
    assert "  p2" in out
    assert "-report, too" in out
    assert "Next: till reconcile" in out


def test_journal_for_scripts(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "--json", "--home", str(book)]) == 0
    first, second, result = told(capsys)
    assert first["payment"]["amount"] == {"value": "1250", "currency": "EUR"}
    assert (first["payment"]["state"], first["payment"]["left"]) == ("approved", "1250")
    assert second["payment"]["state"] == "in_doubt"
    assert result == {
        "event": "result",
        "payments": 2,
        "unresolved": 1,
        "verified_records": None,
        "verified_of": None,
        "exit_code": 0,
    }


def test_journal_of_what_is_open(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "--open", "--json", "--home", str(book)]) == 0
    assert [line.get("payment", {}).get("id") for line in told(capsys)] == ["p2", None]


def test_an_empty_journal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "--home", str(home)]) == 0
    assert capsys.readouterr().out == "no payments\n"


def test_a_journal_that_was_altered(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = sqlite3.connect(book / "journal.db", isolation_level=None)
    db.execute("UPDATE payments SET facts = CAST(replace(facts, '1250', '1') AS BLOB) WHERE id = 'p1'")
    db.close()
    assert main(["journal", "--verify", "--json", "--home", str(book)]) == 2
    (error,) = told(capsys)
    assert error["error"] == "JournalDamaged"
    assert "p1" in error["message"]


# -- keys -------------------------------------------------------------------------------------------------------


def test_keys(home: Path, document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "--json", "--home", str(home)]) == 0
    zmk, identity, result = told(capsys)
    assert (zmk["role"], zmk["kcv"], zmk["usage"], zmk["algorithm"], zmk["mode"]) == (
        "zmk",
        document["zmk"]["kcv"],
        "K1",
        "A",
        "D",
    )
    assert identity["key_id"] == "idk_1"
    assert result == {"event": "result", "keys": 2, "exit_code": 0}
    assert main(["keys", "--home", str(home)]) == 0
    out = capsys.readouterr().out
    assert document["zmk"]["kcv"] in out
    assert document["zmk"]["key"] not in out
    assert document["identity"]["secret"] not in out


def test_another_credentials_file_is_no_passphrase_to_type_again(
    home: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credentials.write_bytes(os.urandom(32))
    assert main(["keys", "--json", "--home", str(home)]) == 2
    (error,) = told(capsys)
    assert "credentials file" in error["advice"]
    assert "passphrase" not in error["advice"]


def test_keys_while_the_terminal_is_in_use(
    home: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Vault.open(home / "vault", CredentialFile(credentials), random=bytes):
        assert main(["keys", "--home", str(home)]) == 2
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err


def test_the_log_goes_to_a_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILL_LOG", str(tmp_path / "none" / "till.log"))
    assert main(["status", "--home", str(home)]) == 2
    assert "TILL_LOG" in capsys.readouterr().err
    monkeypatch.setenv("TILL_LOG", str(tmp_path / "till.log"))
    assert main(["status", "--home", str(home)]) == 0
    assert (tmp_path / "till.log").exists()
