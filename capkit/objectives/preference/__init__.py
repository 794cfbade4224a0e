"""Objectives on pairs of captions of which one is preferred."""
