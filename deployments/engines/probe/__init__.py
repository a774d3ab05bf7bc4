"""Runs an engine's binary to ask what it is; the rest of engines/ is pure and runs nothing.

Nothing that is started here keeps running.
Entered by services and the supervision.
"""
