"""What a strategy is: its roles, what it needs, its plan, and how a request passes through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from deployments.planning.plan import Plan, PlanRequest


class Strategy(ABC):
    """One way to place models on devices. Pure: the same request always gives the same plan."""

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    # The role whose instance answers requests.
    serving_role: ClassVar[str]

    @abstractmethod
    def plan(self, request: PlanRequest) -> Plan:
        """Raises OmniError when the request cannot be understood; what does not fit is a verdict, not an error."""
