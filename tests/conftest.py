"""For every test: hypothesis without deadlines (speed belongs in the bench), the same examples in every CI run."""

from __future__ import annotations

import os

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # This process is measured; the hosts and commands that it starts are not, and so run at their own speed.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

settings.register_profile("till", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("till")
