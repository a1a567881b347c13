"""``scripts/fuzz``: a driver against bytes that libFuzzer makes up, led by the coverage of ``hw`` (by atheris).

    scripts/fuzz pn532 --seconds 3600
    scripts/fuzz pn532 --replay          every input that was kept, without libFuzzer: a regression test

What found new ground is kept in ``--corpus``; an input that broke something is left there in ``crash-...``.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

DRIVERS = ("acs", "gemcore", "magstripe", "magstripe-setup", "pn532", "vivopay", "vivopay-contact", "vivopay-apdu")
"""The names of ``tests.fuzz.targets.TARGETS``, which is imported once its imports are watched."""

SEEDS = 60
"""Random inputs, of 4 to 181 bytes, that it begins with."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("driver", choices=DRIVERS)
    parser.add_argument("--seconds", type=int, default=60, help="how long (60)")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="where inputs are kept (.fuzz)")
    parser.add_argument("--replay", action="store_true", help="run what was kept, and no more")
    wanted = parser.parse_args()
    folder = wanted.corpus / wanted.driver
    folder.mkdir(parents=True, exist_ok=True)
    if wanted.replay:
        replay(wanted.driver, folder)
    else:
        fuzz(wanted.driver, folder, wanted.seconds)


def replay(driver: str, folder: Path) -> None:
    """Each input that was kept; the first that breaks something ends it."""
    from tests.fuzz.targets import TARGETS, one_input

    found = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in found:
        try:
            one_input(TARGETS[driver], path.read_bytes())
        except BaseException:
            print(f"{path} breaks it:", file=sys.stderr)
            raise
    print(f"{driver}: {len(found)} inputs")


def fuzz(driver: str, folder: Path, seconds: int) -> None:
    """Never comes back: libFuzzer ends the process, and prints its figures before."""
    try:
        atheris: Any = __import__("atheris")
    except ModuleNotFoundError:
        sys.exit("scripts/fuzz needs what is not installed here: .venv/bin/python -m pip install atheris")
    with atheris.instrument_imports(include=["hw"]):
        from tests.fuzz.targets import TARGETS, one_input
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    if not any(corpus.iterdir()):  # from nothing, it would take hours to come to inputs of this length
        for number in range(SEEDS):
            (corpus / f"seed-{number}").write_bytes(Random(number).randbytes(4 + 3 * number))
    words = (
        f"-max_total_time={seconds}",
        "-max_len=1024",
        "-len_control=0",
        "-timeout=30",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/",
    )
    atheris.Setup([sys.argv[0], *words, str(corpus)], partial(one_input, TARGETS[driver]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
