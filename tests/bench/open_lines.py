"""The whole terminal opened with a long past behind it, until it could take the next payment."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import msgspec

from terminal.clock import system_random
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.vault import CredentialFile, Vault
from terminal.home import JOURNAL_ID, VAULT_FILE, ClearZmk, DeviceDocument, Identity, provision
from terminal.journal_file import FILE_NAME, keys_path
from terminal.settings import HostSettings, Settings
from terminal.terminal import Terminal
from tests.bench.journal_lines import OPEN, PAST, fill
from tests.bench.measure import Clock, Figure, Samples

NOWHERE: Final = "http://127.0.0.1:9"


def opening_late(rounds: int = 41) -> Iterator[Figure]:
    """``Terminal.open``, and what it then asks the journal before a charge; the closing is not counted."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="till-bench-")))
        homes = {name: home(folder / name, past) for name, past in (("empty", 0), ("full", PAST))}
        runner = stack.enter_context(asyncio.Runner())

        def measured(clock: Clock, transport: httpx.AsyncBaseTransport | None) -> Samples:
            seconds: dict[str, list[float]] = {name: [] for name in homes}
            for name in homes:
                runner.run(opened(homes[name], OPEN if name == "full" else 0, clock, transport))
            for number in range(rounds):
                for name in homes if number % 2 == 0 else reversed(homes):
                    gc.collect()
                    took = opened(homes[name], OPEN if name == "full" else 0, clock, transport)
                    seconds[name].append(runner.run(took))
            return Samples(seconds)

        yield measured(time.perf_counter, None).figure(
            "open_100k",
            "full",
            "empty",
            "ms",
            bound=2.0,
            about="a terminal with 100,000 past payments and 50 open ones opened, ready for the next / the same, "
            "its journal empty, on the wall",
        )
        yield measured(time.process_time, httpx.MockTransport(lambda request: httpx.Response(500))).figure(
            "open_100k_cpu",
            "full",
            "empty",
            "ms",
            bound=2.0,
            about="the same in CPU time, without TLS: what is left where the disk costs nothing",
        )


async def opened(
    settings: Settings, unresolved: int, clock: Callable[[], float], transport: httpx.AsyncBaseTransport | None
) -> float:
    """Seconds until a charge could begin."""
    began = clock()
    async with Terminal.open(settings, transport=transport) as till:
        found = till.journal.charge_by_reference("order-new"), till.journal.unresolved()
        took = clock() - began
        assert found[0] is None
        assert len(found[1]) == unresolved
    return took


def home(folder: Path, past: int) -> Settings:
    """A provisioned terminal with so many approved charges in a year, and fifty open ones where there are any."""
    folder.mkdir()
    credentials, zmk = folder / "credentials", os.urandom(32)
    credentials.touch(mode=0o600)
    credentials.write_bytes(os.urandom(32))
    identity = Identity("idk_1", b64encode(os.urandom(32)).decode())
    provision(
        folder / "home",
        DeviceDocument("POS-00000001", "TID-000001", identity, ClearZmk(zmk.hex(), aes_kcv(zmk))),
        NOWHERE,
        CredentialFile(credentials),
        random=system_random,
        credentials_file=credentials,
    )
    with Vault.open(folder / "home" / VAULT_FILE, CredentialFile(credentials), random=system_random) as vault:
        journal_id = vault.facts[JOURNAL_ID]
    journal = folder / "home" / FILE_NAME
    for path in (journal, keys_path(journal)):
        path.unlink()
    fill(journal, past, journal_id)
    return msgspec.structs.replace(
        Settings(), home=str(folder / "home"), credentials_file=str(credentials), host=HostSettings(url=NOWHERE)
    )
