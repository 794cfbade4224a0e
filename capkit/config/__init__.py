"""Composes configs from the command line, and rejects invalid ones before torch is imported."""
