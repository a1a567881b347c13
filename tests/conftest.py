"""For every test: hypothesis without deadlines (speed belongs in the bench), the same examples in every CI run."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("till", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("till")
