"""Models, engines, deployments: what they are, what they take, what runs.

Rooms and order: docs/architecture.md.
"""
