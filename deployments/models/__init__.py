"""Rows: what is known, wanted and observed. Imports states only, and no row decides anything."""

from deployments.models.activity import BodyKeeping, GatewayRequest, KeptBody
from deployments.models.advice import RigQuestion
from deployments.models.alerts import (
    Alert,
    AlertChannel,
    AlertDelivery,
    AlertRule,
    RequestTotals,
    ScrapeToken,
)
from deployments.models.benchmark import BenchmarkRun
from deployments.models.deployment import (
    HELPING_ROLES,
    Binding,
    Deployment,
    Instance,
    Role,
    Transition,
)
from deployments.models.download import Download
from deployments.models.gateway import ApiKey, Route
from deployments.models.library import Engine, LibraryFolder, Model
from deployments.models.measurement import LayoutResult, Measurement, ReferenceAnswer
from deployments.models.plan import StoredPlan

__all__ = [
    "HELPING_ROLES",
    "Alert",
    "AlertChannel",
    "AlertDelivery",
    "AlertRule",
    "ApiKey",
    "BenchmarkRun",
    "Binding",
    "BodyKeeping",
    "Deployment",
    "Download",
    "Engine",
    "GatewayRequest",
    "Instance",
    "KeptBody",
    "LayoutResult",
    "LibraryFolder",
    "Measurement",
    "Model",
    "ReferenceAnswer",
    "RequestTotals",
    "RigQuestion",
    "Role",
    "Route",
    "ScrapeToken",
    "StoredPlan",
    "Transition",
]
