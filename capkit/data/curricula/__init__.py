"""Curricula decide which examples form each batch."""
