"""What the table says of a file besides its numbers."""

FEWER: dict[str, str] = {}
"""Files of effect tests that are not in the table with three seeds, and why."""

REMARKS: dict[str, str] = {}
"""What was found out about a row, such as a seed at which a test fails."""
