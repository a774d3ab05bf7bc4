"""Pages that belong to no app: health, metrics and the error pages."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import PasswordChangeView
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from omni.sockets import tokens


@login_not_required
def healthz(request: HttpRequest) -> HttpResponse:
    """200 when pages can be served: the database answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return JsonResponse({"status": "database unreachable"}, status=503)
    return JsonResponse({"status": "ok"})


@login_not_required
@require_GET
@never_cache
def socket_token(request: HttpRequest) -> HttpResponse:
    """What a page says first on a socket. Only a page of this very origin can read it."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return JsonResponse({"error": "Only the panel's own pages open sockets."}, status=403)
    if not request.user.is_authenticated:
        return JsonResponse({"error": "Log in first."}, status=401)
    return JsonResponse({"token": tokens.make(request.session.session_key or "")})


class PasswordPage(PasswordChangeView):
    """Everybody's own password. The other log-ins of the same user end with it; this one goes on."""

    template_name = "registration/password.html"
    success_url = reverse_lazy("gpus:rig")

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        messages.success(self.request, "Your password is changed. Everywhere else you are logged out.")
        return response


def metrics(request: HttpRequest) -> HttpResponse:
    """What the panel knows of its deployments, in Prometheus' text format."""
    from deployments.gateway.handover_lines import counts
    from deployments.models import Deployment, Instance

    lines = ["# TYPE omni_deployment_ready gauge"]
    for deployment in Deployment.objects.prefetch_related("instances"):
        ready = int(deployment.state == "ready")
        labels = f'deployment="{deployment.name}",strategy="{deployment.strategy}"'
        lines.append(f"omni_deployment_ready{{{labels}}} {ready}")
    lines.append("# TYPE omni_instance_restarts_total counter")
    for instance in Instance.objects.select_related("deployment", "device"):
        owner = instance.deployment or instance.device
        lines.append(f'omni_instance_restarts_total{{owner="{owner}",role="{instance.role}"}} {instance.restarts}')
    lines.append("# TYPE omni_handovers_total counter")
    for (name, outcome), count in sorted(counts.items()):
        lines.append(f'omni_handovers_total{{deployment="{name}",outcome="{outcome}"}} {count}')
    return HttpResponse("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8")


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "errors/400.html", status=400)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "errors/403.html", status=403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "errors/404.html", status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    return render(request, "errors/500.html", status=500)
