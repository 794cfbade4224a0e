"""Side-by-side timings against what users would take instead: `python -m benchmarks.<name>` in a checkout."""
