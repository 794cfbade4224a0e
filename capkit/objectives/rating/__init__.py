"""Objectives on captions that people or models have ranked or scored."""
