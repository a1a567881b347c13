"""One run of ``till``: parse, do, report, and the exit code. Nothing that is raised gets past this."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path

import click

from terminal.cli import failures
from terminal.cli.commands import make
from terminal.cli.common import Common


def run(arguments: Sequence[str]) -> int:
    """Run ``till`` with these arguments; the exit code."""
    # A core file would hold every key that this process has opened.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    common = Common()
    try:
        if path := os.environ.get("TILL_LOG"):
            from terminal import log

            log.to_file(Path(path).expanduser())
        code = make().main(list(arguments), prog_name="till", standalone_mode=False, obj=common)
    except click.Abort as stopped:
        # click's word for Ctrl-C and for the end of the input.
        return failures.report(stopped.__cause__ or KeyboardInterrupt(), common)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, click.UsageError):
            # Options are read in the order in which commands are: after a mistake --json may be unread.
            common.json = common.json or "--json" in arguments
        return failures.report(error, common)
    finally:
        common.close_screen()
    return code if isinstance(code, int) else failures.OK
