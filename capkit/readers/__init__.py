"""Readers: they answer questions about a picture from a text alone."""
