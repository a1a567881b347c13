"""One suite for every reader, real or emulated: ``pytest --reader URL``. It needs pytest; the drivers do not."""
