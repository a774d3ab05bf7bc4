from deployments.models.deployment import Binding, Deployment, Instance, Role, Transition
from deployments.models.download import Download
from deployments.models.library import Engine, LibraryFolder, Model
from deployments.models.measurement import Measurement, ReferenceAnswer
from deployments.models.routing import ApiKey, Route

__all__ = [
    "ApiKey",
    "Binding",
    "Deployment",
    "Download",
    "Engine",
    "Instance",
    "LibraryFolder",
    "Measurement",
    "Model",
    "ReferenceAnswer",
    "Role",
    "Route",
    "Transition",
]
