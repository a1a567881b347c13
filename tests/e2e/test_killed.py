"""`till activate`, killed by SIGKILL before and after each effect on the host and each write, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from terminal.activation import Level
from terminal.crypto.vault_file import read_facts
from terminal.home import VAULT_FILE
from tests.e2e.hosted import call, claim, host, pair_beforehand, provisioned

KILLED = [sys.executable, str(Path(__file__).parent / "killed.py")]
WORKERS = 10
NEVER = 1_000_000
ORDER = [level.value for level in Level]
BROUGHT_BY = {  # the call by which a level is reached, and which must not be made again once it holds
    "bootstrapped": "/pos/bootstrap",
    "pairing": "/pos/pairing-code",
    "attested": "/pos/attest",
    "keyed": "/pos/keys",
    "configured": "/pos/config",
    "parameterised": "/pos/terminal-parameters",
    "activated": "/pos/activate",
}


class Lives:
    """One process that lives many lives, one after another."""

    def __enter__(self):
        self._process = subprocess.Popen(
            KILLED, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        self._process.communicate()

    def activate(self, chosen, home, url, device):
        """Run an activation to its end or its death; claims the device when a code is shown.

        Gives back the exit code, and how many moments there were where it ended by itself.
        """
        self._process.stdin.write(f"{chosen} {home}\n")
        moments = 0
        for line in self._process.stdout:
            event = json.loads(line)
            match event["event"]:
                case "pairing_code_shown":
                    claim(url, device, event["pairing_code"])
                case "moments":
                    moments = event["count"]
                case "ended":
                    return event["code"], moments
        raise AssertionError("the process of many lives has died")


def exchanges(url, device):
    told = call(f"{url}/sim/exchanges?{urlencode({'device_id': device['device_id']})}")["exchanges"]
    return [(exchange["path"], exchange["status"]) for exchange in told]


def live(lives, url, folder, chosen, *, paired):
    """One life: killed at the chosen moment, started again. Gives back how many moments the first run had."""
    home = folder / f"{'paired' if paired else 'new'}-{chosen}"
    device = provisioned(url, home)
    (home / "settings.toml").write_text("pairing_poll = 3.0\n" + (home / "settings.toml").read_text())
    if paired:
        pair_beforehand(url, device)
    code, moments = lives.activate(chosen, home, url, device)
    if code == 0:
        return moments
    assert code == -signal.SIGKILL, chosen
    held = read_facts(home / VAULT_FILE)["level"]
    before = len(exchanges(url, device))
    assert lives.activate(NEVER, home, url, device)[0] == 0, chosen
    assert read_facts(home / VAULT_FILE)["level"] == "activated"
    made = exchanges(url, device)
    assert all(status == 200 for _, status in made), (chosen, made)
    again = [path for path, _ in made[before:]]
    for level, path in BROUGHT_BY.items():
        if ORDER.index(level) <= ORDER.index(held):
            assert path not in again, f"killed at {chosen} and standing at {held}: {path} was called again"
    assert [path for path, _ in made].count("/pos/activate") == 1, (chosen, made)
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False], ids=["claimed beforehand", "claimed on the way"])
def test_an_activation_that_was_killed_anywhere_finishes_and_repeats_no_level_that_holds(tmp_path, paired):
    with host(tmp_path / "host") as url, Lives() as first:
        whole = live(first, url, tmp_path, NEVER, paired=paired)
        assert whole > 40
        # On the way of a claim only what lies before it is new.
        last = whole if paired else 34

        def every_nth(start):
            with Lives() as lives:
                return [
                    live(lives, url, tmp_path, chosen, paired=paired) for chosen in range(start, last + 1, WORKERS)
                ]

        with ThreadPoolExecutor(WORKERS) as pool:
            left = [number for numbers in pool.map(every_nth, range(1, WORKERS + 1)) for number in numbers]
        assert left == [0] * last
