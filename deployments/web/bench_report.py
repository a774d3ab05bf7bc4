"""What the page of a benchmark shows of its document."""

from __future__ import annotations

from typing import Any

from deployments.models import BenchmarkRun


def report_of(run: BenchmarkRun) -> dict[str, Any]:
    return dict(run.document or {})
