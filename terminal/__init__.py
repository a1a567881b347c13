"""Tillwright: a payment terminal in software."""

__version__ = "0.1.0"
