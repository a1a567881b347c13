"""How quickly ``till`` starts, and what it leaves unimported."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from terminal.clock import system_random
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.vault import CredentialFile
from terminal.home import ClearZmk, DeviceDocument, Identity, provision
from tests.bench.measure import Figure, alternate

HEAVY: Final = frozenset(
    ("httpx", "httpcore", "h11", "requests", "starlette", "uvicorn", "fastapi", "flask", "django", "aiohttp")
)
"""HTTP clients and web frameworks: none of them is needed to say where a terminal stands."""

TILL: Final = Path(sys.executable).with_name("till")
"""The installed script."""


def starting() -> Iterator[Figure]:
    """The installed ``till --version``, time on the wall, and what ``till status`` imports."""

    def run(*words: str) -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    yield alternate(
        {
            "till": lambda: run(str(TILL), "--version"),
            "python": lambda: run(sys.executable, "-c", "pass"),
        },
        rounds=31,
        clock=time.perf_counter,
    ).figure(
        "till_version", "till", "python", "ms", bound=5.0, about="till --version / python -c pass, on the wall"
    )
    yield status()


def status() -> Figure:
    """The modules that ``till status`` imports for a provisioned terminal, and how many of them are heavy."""
    with TemporaryDirectory(prefix="till-bench-") as folder:
        home, credentials = Path(folder) / "home", Path(folder) / "credentials"
        credentials.touch(mode=0o600)
        credentials.write_bytes(os.urandom(32))
        zmk = os.urandom(32)
        provision(
            home,
            DeviceDocument(
                "POS-00000001",
                "TID-000001",
                Identity("idk_1", b64encode(os.urandom(32)).decode()),
                ClearZmk(zmk.hex(), aes_kcv(zmk)),
            ),
            "http://127.0.0.1:9",
            CredentialFile(credentials),
            random=system_random,
            credentials_file=credentials,
        )
        names = imported(str(TILL), "--home", str(home), "status")
    assert any(name.startswith("terminal.cli") for name in names), names
    heavy = [name for name in names if name.partition(".")[0] in HEAVY]
    about = "modules of HTTP clients and web frameworks that till status imports / all that it imports"
    return Figure(
        name="till_status_imports",
        ours=len(heavy),
        theirs=len(names),
        unit="modules",
        bound=0.0,
        about=f"{about}{': ' if heavy else ''}{', '.join(heavy[:5])}",
    )


def imported(*words: str) -> list[str]:
    """The modules that a Python script imports, as the interpreter itself tells it."""
    told = subprocess.run((sys.executable, "-X", "importtime", *words), check=True, capture_output=True, text=True)
    lines = [line for line in told.stderr.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines[1:]]
