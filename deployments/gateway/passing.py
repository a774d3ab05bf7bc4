"""A request on its way through a deployment's instances; the plain way: one instance does
everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from deployments.gateway.kv_transfer_plan import KvTransferReport
from deployments.gateway.table import Serving


@dataclass
class Passing:
    """`fields` go to the instance that answers.

    What it answers is shown here, and goes on untouched.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    report: KvTransferReport | None = None

    def status_received(self, status: int) -> None:
        """The answer has a status."""

    def data_received(self, data: bytes) -> None:
        """A piece of the answer came."""


@asynccontextmanager
async def direct(
    path: str, serving: Serving, fields: Mapping[str, Any]
) -> AsyncIterator[Passing]:
    yield Passing(fields)
