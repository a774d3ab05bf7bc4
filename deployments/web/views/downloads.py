"""Pages of downloads: what a repository on the hub has, and how far what was asked for is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_GET, require_POST

from deployments.library import downloads, hub, hub_client, hub_files
from deployments.models import Download, Model
from deployments.services.discovery import local_host
from deployments.services.waiting import agent_is_running
from gpus.models import Device
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, is_htmx, wants_part
from omni.roles.rights import MANAGE_LIBRARY, require


# --- looking --------------------------------------------------------------------------------------
@require_GET
def download(request: HtmxHttpRequest) -> HttpResponse:
    """Everybody sees the list; who may manage the library also asks the hub, by ?repo=."""
    typed = request.GET.get("repo", "").strip()
    if typed:
        require(request.user, MANAGE_LIBRARY)
    context = {"typed": typed} | (_found(typed) if typed else {})
    if wants_part(request):
        response = render(request, "deployments/_hub_choices.html", context)
    else:
        page = {
            "token_is_set": hub_client.has_token(),
            "hub_url": hub_client.endpoint(),
        }
        response = render(
            request, "deployments/download.html", context | page | _list_context()
        )
    # One address, two bodies: going back must not show the part as if it were the page.
    patch_vary_headers(response, ["HX-Request"])
    return response


@require_GET
def download_list(request: HtmxHttpRequest) -> HttpResponse:
    if not wants_part(request):
        return redirect("deployments:download")
    return render(request, "deployments/_downloads.html", _list_context())


def _list_context() -> dict[str, Any]:
    rows = list(Download.objects.select_related("requested_by"))
    paths = [_first_path(row) for row in rows if row.state == Download.State.DONE]
    names = dict(Model.objects.filter(path__in=paths).values_list("path", "name"))
    return {
        "downloads": [(row, names.get(_first_path(row))) for row in rows],
        "agent_runs": agent_is_running(local_host()),
    }


def _first_path(row: Download) -> str:
    if row.files:
        return str(Path(row.folder) / row.files[0]["path"])
    return ""


def _found(typed: str) -> dict[str, Any]:
    """What the hub says of what was typed, or the error that a person can act on."""
    try:
        wanted = hub_files.parse_repo(typed)
        info = hub.repo_info(wanted.repo, wanted.revision)
    except OmniError as error:
        return {"error": error}
    found = hub_files.choices(info.files)
    rooms = _device_rooms()
    folders = [
        (path, downloads.free_bytes(path)) for path in downloads.target_folders()
    ]
    most_free = max(free for _, free in folders) - downloads.RESERVE_BYTES
    best = hub_files.recommended(found, rooms)
    return {
        "info": info,
        "rows": [
            _row(info, choice, rooms, most_free, best)
            for choice in found
            if choice.kind == "model"
        ],
        "picked": hub_files.wanted_choice(found, wanted.part) or best,
        "projectors": [
            choice
            for choice in found
            if choice.kind == "projector" and not choice.n_missing
        ],
        "projector": hub_files.suggested_projector(found),
        "folders": folders,
        "other_count": len(info.files),
        "may_enter": not info.gated or hub_client.has_token(),
    }


def _device_rooms() -> list[hub_files.DeviceRoom]:
    """This host's devices.

    Stand-ins are left out: their memory is the CPU's, which is there already.
    """
    rows = Device.objects.filter(host=local_host(), is_present=True, is_stand_in=False)
    return [
        hub_files.DeviceRoom(row.name, row.memory_bytes, row.kind != Device.Kind.CPU)
        for row in rows
    ]


def _row(
    info: hub.RepoInfo,
    choice: hub_files.DownloadOption,
    rooms: list[hub_files.DeviceRoom],
    most_free: int,
    best: str,
) -> dict[str, Any]:
    fitting = [
        (place.name, hub_files.fits(choice.size_bytes, place)) for place in rooms
    ]
    return {
        "choice": choice,
        "memory_bytes": hub_files.needed_bytes(choice.size_bytes),
        "fits": [(name, does) for name, does in fitting if does is not None],
        "has_room": choice.size_bytes <= most_free,
        "is_best": choice.key == best,
        "plan_address": reverse(
            "deployments:hub_plan",
            query={
                "repo": info.repo,
                "revision": info.revision,
                "part": choice.key,
            },
        ),
    }


# --- acting ---------------------------------------------------------------------------------------
@require_POST
def start(request: HtmxHttpRequest) -> HttpResponse:
    """The hub is asked again, at the commit that was shown: sizes and checksums come from nobody
    else."""
    wanted = hub_files.parse_repo(request.POST.get("repo", ""))
    info = hub.repo_info(wanted.repo, request.POST.get("revision", ""))
    keys = [request.POST.get("choice", ""), request.POST.get("projector", "")]
    found = {choice.key: choice for choice in hub_files.choices(info.files)}
    picked = [found[key] for key in dict.fromkeys(keys) if key in found]
    if keys[0] and keys[0] not in found:
        raise OmniError(
            "bad_choice",
            "The repository has no such file any more.",
            "Look it up again.",
        )
    if request.POST.get("folder"):
        folder = Path(request.POST["folder"])
    else:
        folder = None
    row = downloads.download_request(
        host=local_host(), info=info, picked=picked, folder=folder, user=request.user
    )
    return _said(request, f"{row} is on its way.")


@require_POST
def pause(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    return _act(
        request, pk, downloads.download_pause, "{} is paused. What is there stays."
    )


@require_POST
def resume(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    return _act(
        request, pk, downloads.download_resume, "{} goes on from where it stopped."
    )


@require_POST
def cancel(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    return _act(request, pk, downloads.download_cancel, "{} is cancelled.")


@require_POST
def forget(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    return _act(
        request, pk, downloads.download_forget, "{} is off the list. Files stay."
    )


def _act(
    request: HtmxHttpRequest, pk: int, act: Callable[..., None], text: str
) -> HttpResponse:
    row = get_object_or_404(Download, pk=pk)
    act(download=row, user=request.user)
    return _said(request, text.format(row))


def _said(request: HtmxHttpRequest, text: str) -> HttpResponse:
    if not is_htmx(request):
        messages.info(request, text)
        return redirect("deployments:download")
    response = HttpResponse(status=204)
    response["HX-Trigger"] = json.dumps(
        {
            "toast": {"text": text, "kind": "info"},
            "acted": {"news": ["downloads-changed"]},
        }
    )
    return response
