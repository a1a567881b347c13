"""The demo behind scripts/demo: the commands of `till`, as a person would type them, and what came of them.

The terminal, the host and the card reader are processes of their own; this one only types, listens, plays the
merchant who claims the terminal in the portal, and at the end compares the journal with the host's ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from sim.balance import Row, differences, journal_rows, ledger_rows
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME
from terminal.money import Amount

TILL = [sys.executable, "-m", "terminal.cli.entry"]
DEADLINE = 60.0
"""Seconds that any one answer may take before the demo gives up."""


class Failed(Exception):
    """A step of the demo did not do what it should."""


def call(url: str, document: Any = None, token: str = "") -> Any:
    """A JSON call to the host, as the merchant's portal or a curious engineer would make it."""
    data = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    with urlopen(Request(url, data=data, headers=headers), timeout=DEADLINE) as answer:
        return json.load(answer)


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A `till` command that stays in the background until the block ends."""
    process = subprocess.Popen([*TILL, *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def first_line(process: subprocess.Popen[str], what: str) -> str:
    """The line that says that a background command is ready."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise Failed(f"{what} ended before it was ready")
    return line


class Demo:
    """Runs the steps, tells them, and gathers what they gave."""

    def __init__(self, folder: Path, *, headless: bool, quiet: bool) -> None:
        self.folder, self.headless, self.quiet = folder, headless, quiet
        self.home = folder / "terminal"
        self.levels: list[str] = []
        self.done: dict[str, list[dict[str, Any]]] = {"charges": [], "refunds": [], "cancels": []}

    def say(self, text: str, style: str = "") -> None:
        """Show a line: coloured for a person, plain for a log."""
        if self.quiet:
            return
        colour = {"title": "\033[1;36m", "good": "\033[32m", "bad": "\033[31m", "dim": "\033[2m"}.get(style, "")
        plain = self.headless or not sys.stdout.isatty() or not colour
        print(text if plain else f"{colour}{text}\033[0m", flush=True)

    def till(self, *words: str) -> Iterator[dict[str, Any]]:
        """Run a `till` command to its end; yields each of its events as it happens."""
        self.say(f"\n$ till {' '.join(words)}", "title")
        command = [*TILL, "--json", "--home", str(self.home), *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if text := describe(event):
                    self.say(f"  {text}")
                yield event
        if process.returncode not in (0, 1):
            raise Failed(f"till {words[0]} ended with exit code {process.returncode}")

    def activate(self, url: str, merchant: dict[str, str]) -> None:
        """Climb the levels; claim the terminal as the merchant when its code appears."""
        for event in self.till("activate"):
            if event["event"] == "level_reached":
                self.levels.append(event["level"])
            if event["event"] == "pairing_code_shown":
                token = call(f"{url}/client/session", merchant | {"grant_type": "client_credentials"})
                call(f"{url}/session/initiate", {"host": "merchant.viopay.io"}, token["access_token"])
                call(f"{url}/pos/claim", {"pairing_code": event["pairing_code"]}, token["access_token"])
                self.say("  (the merchant types the code into the portal: claimed)", "dim")

    def pay(self, kind: str, *words: str) -> dict[str, Any]:
        """Run a charge, refund or cancel; gives back the payment that it ended with."""
        result: dict[str, Any] = {}
        for event in self.till(*words):
            if event["event"] == "result":
                result = event["payment"]
        if not result:
            raise Failed(f"till {words[0]} said nothing of a payment")
        self.done[kind].append(result)
        return result

    def run(self) -> dict[str, Any]:
        """The whole demo; gives back what it ends with."""
        with ExitStack() as stack:
            words = ("host", "--listen", "127.0.0.1:0", "--data", str(self.folder / "host"))
            host = stack.enter_context(running(*words))
            url = first_line(host, "the host").removeprefix("listening on ")
            self.say("$ till host --listen 127.0.0.1:0", "title")
            self.say(f"  a simulated host listens on {url}")
            device = call(f"{url}/sim/devices", {})
            document = self.folder / "device.json"
            document.write_text(json.dumps(device))
            credentials = self.folder / "credentials"
            credentials.touch(mode=0o600)
            credentials.write_bytes(os.urandom(32))
            for _ in self.till(
                "provision", "--from", str(document), "--host", url, "--credentials", str(credentials)
            ):
                pass
            self.activate(url, device["merchant"])
            words = ("swipe", "--pty", "--card", "visa", "--at-once")
            reader = stack.enter_context(running(*words))
            port = first_line(reader, "the reader").split()[-1]
            self.say(f"\n$ till {' '.join(words)}", "title")
            self.say(f"  a stripe reader hangs on {port}, and swipes a test card whenever it is asked for one")
            self.payments("--currency", "EUR", "--reader", f"magstripe://{port}")
            # The commands have ended and with them the terminal: from here on only the disk and the host speak.
            journal = Journal.read(self.home / FILE_NAME)
            records = journal.verify()
            ours = journal_rows(journal.payments())
            journal.close()
            theirs = ledger_rows(call(f"{url}/sim/ledger"), device["terminal_id"])
        found = differences(ours, theirs)
        self.show(ours, theirs, found, records)
        return {
            "activated": "activated" in self.levels,
            "levels": self.levels,
            **self.done,
            "journal_equals_ledger": not found and bool(ours),
        }

    def payments(self, *common: str) -> None:
        """Three charges (one of them declined), part of one refunded, another canceled."""
        coffee = self.pay("charges", "charge", "12.50", "--reference", "coffee", *common)
        cake = self.pay("charges", "charge", "8.20", "--reference", "cake", *common)
        self.pay("charges", "charge", "20.51", "--reference", "dinner", *common)
        self.pay("refunds", "refund", coffee["charge_id"], "5.00", "--reason", "cold")
        self.pay("cancels", "cancel", cake["charge_id"])

    def show(self, ours: list[Row], theirs: list[Row], found: list[str], records: int) -> None:
        """The journal and the ledger side by side."""
        self.say(f"\n  {'the journal, reopened from disk':<50} the host's ledger", "title")
        for n in range(max(len(ours), len(theirs))):
            left = line(ours[n]) if n < len(ours) else ""
            right = line(theirs[n]) if n < len(theirs) else ""
            self.say(f"  {left:<50} {right}", "good" if left == right else "bad")
        for difference in found:
            self.say(f"  {difference}", "bad")
        if not found:
            self.say(f"\nThey agree to the cent. ({records} records, each bound to the one before.)", "good")


def line(row: Row) -> str:
    """A charge in one line."""
    back = sum(minor for _, minor, status in row.refunds if status == "approved")
    left = f" - {Amount(back, row.currency)}" if back else ""
    return f"{row.reference:<7} {Amount(row.minor, row.currency)!s:>9}{left:<12} {row.status}"


def describe(event: dict[str, Any]) -> str:
    """An event in a few words; empty for those that a demo leaves out."""
    match event:
        case {"event": "level_reached", "level": level}:
            return f"[x] {level}"
        case {"event": "pairing_code_shown", "pairing_code": code}:
            return f"pairing code  {' '.join(code)}"
        case {"event": "card_wanted", "amount": {"value": value, "currency": currency}}:
            return f"present your card: {Amount(int(value), currency)}"
        case {"event": "card_read", "masked_pan": pan, "entry_mode": mode}:
            return f"{mode}: {pan}"
        case {"event": "payment_changed", "kind": kind, "state": state, "charge_id": charge, "response_code": code}:
            return f"{kind}: {state} {charge} {code}".rstrip()
        case {"event": "error", "message": message}:
            return str(message)
    return ""


def main() -> int:
    """Run it; the exit code says whether everything came out as it should."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--headless", action="store_true", help="no colours")
    parser.add_argument("--json", action="store_true", help="one JSON object, as the last line")
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="keep the terminal's home and the host's data here"
    )
    wanted = parser.parse_args()
    with ExitStack() as stack:
        folder = wanted.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="till-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        demo = Demo(folder, headless=wanted.headless, quiet=wanted.json and not wanted.headless)
        try:
            result = demo.run()
        except (Failed, OSError) as error:
            print(f"the demo stopped: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("the demo was interrupted", file=sys.stderr)
            return 130
    if wanted.json:
        print(json.dumps(result), flush=True)
    return 0 if result["activated"] and result["journal_equals_ledger"] else 1


if __name__ == "__main__":
    sys.exit(main())
