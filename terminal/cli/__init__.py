"""The ``till`` command line: one module a group of commands, loaded when called."""
