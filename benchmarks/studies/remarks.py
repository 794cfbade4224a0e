"""What the table says of a file besides its numbers."""

FEWER: dict[str, str] = {
    "test_starts.py": "it holds the models in tests/effects/starts to their numbers, and trains by no seed of its own",
}
"""Files of effect tests that are not in the table with three seeds, and why."""

REMARKS: dict[str, str] = {}
"""What was found out about a row, such as a seed at which a test fails."""
