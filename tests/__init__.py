"""The tests, importable as ``tests`` so that ``python -m tests.parity`` works from the repository root."""
