"""Bytes of a model where they lie: weights, KV cache, compute buffers, and what fits on which
device.

Pure, and held against the real engine's log by benchmarks/memory_accuracy.py.
Entered by planning, strategies and services.
"""
