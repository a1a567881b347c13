#!/usr/bin/env python3
"""Draws docs/demo.svg from a run of the demo on a pty: `python scripts/picture.py`."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "demo.svg"


def shown() -> str:
    """Everything that the demo writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, str(ROOT / "scripts" / "demo.py")], stdout=theirs) as process:
        os.close(theirs)
        text = b""
        try:
            while piece := os.read(ours, 65536):
                text += piece
        except OSError:  # how Linux says that the other side of a pty has been closed
            pass
        if process.wait() != 0:
            raise SystemExit("the demo failed; its picture stays as it was")
    return text.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    # Paths of a temporary folder say nothing to a reader.
    text = re.sub(r"/tmp/till-demo-[a-z0-9_]+/", "", "$ scripts/demo\n" + shown())
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=108, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(text), overflow="fold")
    svg = console.export_svg(title="scripts/demo")
    # The reader's own fonts: a picture in a README fetches nothing.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S).replace("Fira Code,", ""))
