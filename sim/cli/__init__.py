"""The simulator's commands, found by entry points and loaded only when called."""
