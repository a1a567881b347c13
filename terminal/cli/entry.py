"""Where ``till`` starts. Asked for its version it answers before anything is imported that takes time."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from terminal import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``till`` with these arguments (by default the process's own); the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        sys.stdout.write(f"till {__version__}\n")
        return 0
    from terminal.cli.run import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
