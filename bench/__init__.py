"""Longwire's benchmarks: `python -m bench.run` (see README.md beside this file)."""
