"""``till host``: the simulated host, as a process."""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sim.faults import AnyRule

_LISTEN = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):(?P<port>\d{1,5})")


@click.command()
@click.option("--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Port 0 picks one.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where ledger and keys live. Left out: a temporary directory, removed at the end.",
)
@click.option("--seed", type=int, help="Make keys, ids and codes from this number.")
@click.option(
    "--faults",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What may go wrong: rules in TOML (by the name .toml) or JSON.",
)
def host(listen: str, data: Path | None, seed: int | None, faults: Path | None) -> None:
    """Run a simulated VioPay host, over plain HTTP.

    Prints `listening on http://HOST:PORT` once it is ready. Under /sim/ it gives out devices, shows its ledger and
    the recorded wire, and takes faults; that part answers to this machine only.
    """
    from sim.host.hsm import HsmError
    from sim.host.ledger import LedgerError
    from sim.host.server import InUse, bind, open_host, serve
    from terminal import log

    log.guard_last_resort()
    name, port = _address(listen)
    with ExitStack() as stack:
        rules = _rules(faults) if faults else []
        try:
            listener = stack.enter_context(bind(name, port))
        except OSError as error:
            why = f"cannot listen on {listen}: {error.strerror or error}"
            raise click.ClickException(f"{why}\n`--listen 127.0.0.1:0` takes a port that is free.") from None
        try:
            if data is None:
                data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="till-host-")))
                click.echo(f"no --data: the ledger is in {data} and will be removed at the end", err=True)
            app = stack.enter_context(open_host(data, seed=seed, rules=rules))
        except InUse as error:
            raise click.ClickException(f"{error}\nEnd that host, or take another --data.") from None
        except (HsmError, LedgerError) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            raise click.ClickException(f"cannot use {data}: {error.strerror or error}") from None
        shown = f"[{name}]" if ":" in name else name
        port = listener.getsockname()[1]

        def ready() -> None:
            sys.stdout.write(f"listening on http://{shown}:{port}\n")
            sys.stdout.flush()

        serve(app, listener, ready)


def _rules(path: Path) -> list[AnyRule]:
    from sim.faults import FaultError, parse

    try:
        return parse(path.read_bytes(), toml=path.suffix == ".toml")
    except FaultError as error:
        raise click.ClickException(f"{path}: {error}") from None


def _address(text: str) -> tuple[str, int]:
    found = _LISTEN.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", param_hint="--listen")
    return found["name"].strip("[]"), int(found["port"])
