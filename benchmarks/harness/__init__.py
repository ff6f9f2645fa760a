"""Measures a whole gateway against nginx on this machine: `python -m benchmarks.harness`."""
