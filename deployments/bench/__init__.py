"""Measures deployments against each other: scenarios, load, statistics, report."""
