"""How good the planner's figures are: predictions beside what was measured."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from deployments.services.accuracy import accuracy_of
from deployments.services.discovery import local_host
from deployments.web.accuracy_board import accuracy_board


@require_safe
def accuracy(request: HttpRequest) -> HttpResponse:
    board = accuracy_board(accuracy_of(local_host()))
    return render(request, "deployments/accuracy.html", {"board": board})
