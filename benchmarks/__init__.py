"""Benchmarks: each asks a question, asserts correctness before timing, and reports ratios from interleaved runs."""
