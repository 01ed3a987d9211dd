"""Bytes from anybody, guided by what they reach: ``python -m fuzz TARGET --seconds N``."""
