"""Reads command lines and configs, and refuses wrong ones before torch is imported."""
