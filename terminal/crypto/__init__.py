"""Envelopes, key blocks, signatures, and the keys at rest."""
