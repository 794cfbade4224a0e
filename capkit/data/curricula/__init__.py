"""Curricula: which examples form each training batch."""
