"""What the panel knows of its deployments, for Prometheus."""

from __future__ import annotations

from django.http import HttpResponse

from deployments.gateway.kv_transfer_state import counts
from deployments.models import Deployment, Instance
from deployments.states import InstanceState
from omni.htmx import HtmxHttpRequest


def metrics(request: HtmxHttpRequest) -> HttpResponse:
    """What the panel knows of its deployments, in Prometheus' text format."""
    lines = ["# TYPE omni_deployment_ready gauge"]
    for deployment in Deployment.objects.prefetch_related("instances"):
        ready = int(deployment.state == InstanceState.READY)
        labels = f'deployment="{deployment.name}",strategy="{deployment.strategy}"'
        lines.append(f"omni_deployment_ready{{{labels}}} {ready}")
    lines.append("# TYPE omni_instance_restarts_total counter")
    for instance in Instance.objects.select_related("deployment", "device"):
        owner = instance.deployment or instance.device
        lines.append(
            f'omni_instance_restarts_total{{owner="{owner}",role="{instance.role}"}}'
            f" {instance.restarts}"
        )
    lines.append("# TYPE omni_handovers_total counter")
    for (name, outcome), count in sorted(counts.items()):
        lines.append(
            f'omni_handovers_total{{deployment="{name}",outcome="{outcome}"}} {count}'
        )
    return HttpResponse(
        "\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8"
    )
