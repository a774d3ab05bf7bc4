from __future__ import annotations

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from gpus.models import Device, Gpu, HistoryMark, HistorySubject, Host
from omni.addresses import parse_endpoint
from omni.administration import RightsAdmin, RowForm
from omni.errors import OmniError
from omni.units import bytes_text, watts_text

GPU_COLOURS = {
    "ok": "success",
    "lost": "danger",
    "error": "danger",
    "absent": "warning",
}
DRIVER_COLOURS = {"ok": "success", "library_missing": "info", "no_devices": "info"}


@admin.register(Host)
class HostAdmin(RightsAdmin):
    list_display = (
        "name",
        "cpu_name",
        "cpu_count",
        "memory",
        "driver",
        "driver_version",
        "agent_seen_at",
    )
    search_fields = ("name", "cpu_name")
    list_filter = ("nvml_state",)

    @display(description="RAM", ordering="ram_bytes")
    def memory(self, host: Host) -> str:
        return bytes_text(host.ram_bytes)

    @display(description="NVIDIA driver", ordering="nvml_state", label=DRIVER_COLOURS)
    def driver(self, host: Host) -> tuple[str, str]:
        return host.nvml_state, host.nvml_state.replace("_", " ") or "not asked yet"


@admin.register(Gpu)
class GpuAdmin(RightsAdmin):
    list_display = (
        "name",
        "host",
        "shown_state",
        "memory",
        "power",
        "link",
        "pci_bus_id",
        "seen_at",
    )
    search_fields = ("name", "uuid", "pci_bus_id", "host__name")
    list_filter = ("state", "host")
    list_select_related = ("host",)

    @display(description="State", ordering="state", label=GPU_COLOURS)
    def shown_state(self, gpu: Gpu) -> tuple[str, str]:
        return gpu.state, gpu.get_state_display()

    @display(description="Memory", ordering="memory_bytes")
    def memory(self, gpu: Gpu) -> str:
        return bytes_text(gpu.memory_bytes)

    @display(description="Power limit", ordering="power_limit_watts")
    def power(self, gpu: Gpu) -> str:
        return watts_text(gpu.power_limit_watts)

    @display(description="Best link")
    def link(self, gpu: Gpu) -> str:
        known = gpu.pcie_generation_max and gpu.pcie_width_max
        if known:
            return f"Gen {gpu.pcie_generation_max} × {gpu.pcie_width_max}"
        return "N/A"


class DeviceForm(RowForm):
    def clean_endpoint(self) -> str:
        text = str(self.cleaned_data["endpoint"]).strip()
        try:
            if text:
                return ":".join(map(str, parse_endpoint(text)))
            return ""
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None


@admin.register(Device)
class DeviceAdmin(RightsAdmin):
    form = DeviceForm
    list_display = (
        "name",
        "host",
        "kind",
        "gpu",
        "memory",
        "endpoint",
        "is_stand_in",
        "is_present",
    )
    search_fields = ("name", "description", "endpoint", "gpu__uuid", "gpu__name")
    list_filter = ("kind", "is_stand_in", "is_present", "host")
    list_select_related = ("host", "gpu__host")

    def save_model(
        self, request: HttpRequest, obj: Device, form: object, change: bool
    ) -> None:
        """What is typed in is a device of another host; all others are found."""
        if not change:
            obj.kind = Device.Kind.RPC
        obj.save()

    @display(description="Memory", ordering="memory_bytes")
    def memory(self, device: Device) -> str:
        return bytes_text(device.memory_bytes)


@admin.register(HistorySubject)
class HistorySubjectAdmin(RightsAdmin):
    list_display = ("key", "title", "host", "metrics")
    search_fields = ("key", "title")
    list_filter = ("host",)
    list_select_related = ("host",)


@admin.register(HistoryMark)
class HistoryMarkAdmin(RightsAdmin):
    list_display = ("at", "host", "kind", "subject", "text")
    search_fields = ("subject", "text")
    list_filter = ("kind", "host")
    list_select_related = ("host",)
    date_hierarchy = "at"
