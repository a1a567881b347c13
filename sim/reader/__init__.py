"""Emulators that speak a reader's own bytes over a pty or a socket."""
