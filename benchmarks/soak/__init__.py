"""Soak and chaos: gateways as processes against a provider that misbehaves: `python -m benchmarks.soak`."""
