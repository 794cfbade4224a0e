"""Raters: networks that give captions of a picture a number."""
