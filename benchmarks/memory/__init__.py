"""The parts of memory_accuracy.py: which engines are started, and how."""
