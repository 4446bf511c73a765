"""How fast, on this machine: ``python -m benchmarks``. Reports nothing while the parity tests fail."""
