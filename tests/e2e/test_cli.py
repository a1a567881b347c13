"""The commands of `till` as a person types them, each a process of its own, against a host that is one too."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

from tests.e2e.hosted import DEADLINE, TILL, Home, call, claim, host, pair_beforehand, provisioned, said
from tests.terminal.cli.typist import Typist

PAN = "5413330089010012"
CARD = f"{PAN}\n12/28\n"
PASSPHRASE = "correct-canary-battery-staple"


def test_from_nothing_to_a_balanced_journal(url: str, tmp_path: Path) -> None:
    device = call(f"{url}/sim/devices", {})
    credentials = tmp_path / "credentials"
    credentials.touch(mode=0o600)
    credentials.write_bytes(os.urandom(32))
    home = Home(tmp_path / "home", url)
    assert home.told("status")[0]["level"] == "unprovisioned"
    home.run("charge", "12.50", code=2)
    words = ("provision", "--from", "-", "--host", url, "--credentials", str(credentials))
    home.run(*words, stdin=json.dumps(device))
    not_ready = home.told("charge", "12.50", "--currency", "EUR", "--manual", stdin=CARD, code=2)[-1]
    assert not_ready["error"] == "NotReady"

    # Stopped while it waits for the merchant, it shows the same code again.
    with home.running("activate") as process:
        first = said(process, "pairing_code_shown")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
    with home.running("activate") as process:
        again = said(process, "pairing_code_shown")
        assert (again["pairing_code"], again["resumed"]) == (first["pairing_code"], True)
        claim(url, device, again["pairing_code"])
        assert said(process, "result")["level"] == "activated"
        assert process.wait(DEADLINE) == 0
    (status,) = home.told("status")
    assert (status["level"], status["device_id"]) == ("activated", device["device_id"])
    assert status["key_set_expires_at"] > "2025"

    charge = home.pay("charge", "12.50", "--manual", "--reference", "order-17", stdin=CARD)
    assert (charge["state"], charge["amount"]) == ("approved", {"value": "1250", "currency": "EUR"})
    assert home.pay("charge", "12.50", "--manual", "--reference", "order-17")["id"] == charge["id"]
    home.told("charge", "12.60", "--reference", "order-17", code=2)
    assert home.pay("charge", "20.51", "--manual", stdin=CARD, code=1)["response_code"] == "51"
    half = home.pay("charge", "--minor", "830", "--accept-partial", "--manual", "--pin", "--reference", "half",
                    stdin=CARD + "1234\n")  # fmt: skip
    assert half["approved"] == {"value": "415", "currency": "EUR"}
    refund = home.pay("refund", charge["charge_id"], "5.00", "--reason", "cold")
    assert (refund["state"], refund["parent"]) == ("approved", charge["id"])
    home.told("refund", charge["charge_id"], "7.51", code=2)
    assert home.pay("cancel", "--reference", "half")["state"] == "approved"

    *payments, result = home.told("journal", "--verify")
    assert [line["payment"]["state"] for line in payments] == [
        "partially_refunded",
        "declined",
        "canceled",
        "approved",
        "approved",
    ]
    assert (result["payments"], result["unresolved"]) == (5, 0)
    ledger = [c for c in call(f"{url}/sim/ledger")["charges"] if c["terminal_id"] == device["terminal_id"]]
    assert {c["id"]: c["status"] for c in ledger} == {
        p["payment"]["charge_id"]: p["payment"]["state"] for p in payments if p["payment"]["kind"] == "charge"
    }
    *keys, _ = home.told("keys")
    assert {key["role"] for key in keys} == {"zmk", "identity", "tmk", "kek", "msk", "tpk", "tdk", "mac"}


def test_a_swiped_card(activated: Home) -> None:
    with activated.running("swipe", "--pty", "--at-once") as reader:
        ready = said(reader, "ready")
        events = activated.told("charge", "3.10", "--reader", ready["reader"])
    assert [event["event"] for event in events] == [
        "card_wanted",
        "card_read",
        "payment_changed",
        "payment_changed",
        "result",
    ]
    assert events[-1]["payment"]["entry_mode"] == "swipe"


def test_ctrl_c_while_a_card_is_waited_for(activated: Home) -> None:
    with contextlib.ExitStack() as both:
        reader = said(both.enter_context(activated.running("swipe", "--pty", "--every", "3600")), "ready")["reader"]
        process = both.enter_context(activated.running("charge", "3.10", "--reader", reader))
        said(process, "card_wanted")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert process.stderr is not None
        assert "journal" in process.stderr.read()


def test_ctrl_c_while_the_host_thinks(activated: Home) -> None:
    command = [*TILL, "--json", "--home", str(activated.path), "charge", "1.40", "--reference", "slow", "--manual"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(CARD)
        process.stdin.close()
        while said(process, "payment_changed")["state"] != "pending":
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert "is given up" in process.stderr.read()
    assert [line["payment"]["reference"] for line in activated.told("journal", "--open")[:-1]] == ["slow"]
    # Whoever interrupts has left: the charge is not to stand.
    activated.told("resolve")
    assert activated.pay("charge", "1.40", "--reference", "slow", code=1)["state"] == "canceled"


def test_the_reader_is_five(activated: Home) -> None:
    (error,) = activated.told("charge", "3.10", "--reader", "magstripe:///dev/no-such-port", code=5)
    assert error["error"] == "LineError"
    activated.told("charge", "3.10", "--reader", "punchcard:///dev/x", code=5)


def test_a_host_that_is_not_there_is_four(activated: Home, tmp_path: Path) -> None:
    with host(tmp_path / "host") as gone:
        home = Home(tmp_path / "home", gone)
        device = provisioned(gone, home.path)
        pair_beforehand(gone, device)
        home.run("activate")
    error = home.told("charge", "3.10", "--manual", stdin=CARD, code=4)[-1]
    assert error["error"] == "HostUnreachable"
    assert [line["payment"]["state"] for line in home.told("journal")[:-1]] == ["withdrawn"]


def test_at_a_terminal_the_code_is_drawn_and_nothing_typed_is_seen(url: str, tmp_path: Path) -> None:
    device = call(f"{url}/sim/devices", {})
    document, home = tmp_path / "device.json", ("--home", str(tmp_path / "home"))
    document.write_text(json.dumps(device))
    somebody = Typist("provision", "--from", str(document), "--host", url, *home)
    somebody.answer("New passphrase: ", PASSPHRASE)
    somebody.answer("The same again: ", PASSPHRASE)
    assert somebody.leave() == 0, somebody.seen
    seen = somebody.seen
    somebody = Typist(*home, "activate")
    somebody.answer("Passphrase: ", PASSPHRASE)
    code = somebody.wait_for(r"Type (\w{6}) into the merchant's portal: \d+ s left")[1]
    claim(url, device, code)
    somebody.wait_for("✓ attested")
    somebody.wait_for("The terminal is activated")
    assert somebody.leave() == 0, somebody.seen
    seen += somebody.seen
    somebody = Typist("charge", "12.50", "--manual", "--pin", *home)
    somebody.answer("Passphrase: ", PASSPHRASE)
    somebody.answer("Card number: ", f"{PAN[:4]} {PAN[4:8]} {PAN[8:12]} {PAN[12:]}")
    somebody.answer(r"Expiry \(MM/YY\): ", "12/28")
    somebody.answer("PIN: ", "739184")
    somebody.wait_for("charge approved: EUR 12.50")
    assert somebody.leave() == 0, somebody.seen
    seen += somebody.seen
    for secret in (PASSPHRASE, PAN, PAN[4:8] + " " + PAN[8:12], "739184"):
        assert secret not in seen
