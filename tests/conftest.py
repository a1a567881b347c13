"""For every test: hypothesis without deadlines (speed belongs in the bench), the same examples in every CI run.

Fifty examples a property by default, which keeps the whole run short; TILL_THOROUGH=1 tries two thousand.
"""

from __future__ import annotations

import os
import signal

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # This process is measured; the hosts and commands that it starts are not, and so run at their own speed.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has put us in the background. The commands that are run here hear Ctrl-C, as they do at a terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("till", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("thorough" if os.environ.get("TILL_THOROUGH") else "till")

collect_ignore = ["package_of_a_user"]
"""Somebody else's package: its own pytest runs its tests (tests/sim/test_pytest_plugin.py)."""
