from __future__ import annotations

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from gpus.models import Device, Gpu, Host, SampleRollup
from omni.addresses import parse_endpoint
from omni.errors import OmniError
from omni.units import bytes_text, watts_text

GPU_COLOURS = {"ok": "success", "lost": "danger", "error": "danger", "absent": "warning"}
DRIVER_COLOURS = {"ok": "success", "library_missing": "info", "no_devices": "info"}


@admin.register(Host)
class HostAdmin(ModelAdmin):
    list_display = ("name", "cpu_name", "cpu_count", "memory", "driver", "driver_version", "agent_seen_at")
    search_fields = ("name", "cpu_name")
    list_filter = ("nvml_state",)
    # Written by the agent and its sampler, which would undo whatever is typed here.
    readonly_fields = (
        "cpu_name",
        "cpu_count",
        "ram_bytes",
        "agent_pid",
        "agent_seen_at",
        "nvml_state",
        "nvml_text",
        "driver_version",
        "created_at",
    )

    @display(description="RAM", ordering="ram_bytes")
    def memory(self, host: Host) -> str:
        return bytes_text(host.ram_bytes)

    @display(description="NVIDIA driver", ordering="nvml_state", label=DRIVER_COLOURS)
    def driver(self, host: Host) -> tuple[str, str]:
        return host.nvml_state, host.nvml_state.replace("_", " ") or "not asked yet"


@admin.register(Gpu)
class GpuAdmin(ModelAdmin):
    list_display = ("name", "host", "shown_state", "memory", "power", "link", "pci_bus_id", "seen_at")
    search_fields = ("name", "uuid", "pci_bus_id", "host__name")
    list_filter = ("state", "host")
    list_select_related = ("host",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Gpu | None = None) -> bool:
        return False

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
        return f"Gen {gpu.pcie_generation_max} × {gpu.pcie_width_max}" if known else "N/A"


class DeviceForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean_endpoint(self) -> str:
        text = str(self.cleaned_data["endpoint"]).strip()
        try:
            return ":".join(map(str, parse_endpoint(text))) if text else ""
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None


@admin.register(Device)
class DeviceAdmin(ModelAdmin):
    form = DeviceForm
    list_display = ("name", "host", "kind", "gpu", "memory", "endpoint", "is_stand_in", "is_present")
    search_fields = ("name", "description", "endpoint", "gpu__uuid", "gpu__name")
    list_filter = ("kind", "is_stand_in", "is_present", "host")
    list_select_related = ("host", "gpu__host")
    autocomplete_fields = ("gpu", "host")

    @display(description="Memory", ordering="memory_bytes")
    def memory(self, device: Device) -> str:
        return bytes_text(device.memory_bytes)


@admin.register(SampleRollup)
class SampleRollupAdmin(ModelAdmin):
    list_display = ("start", "host", "card", "metric", "resolution_s", "minimum", "mean", "maximum", "count")
    search_fields = ("card", "metric")
    list_filter = ("resolution_s", "metric", "host")
    list_select_related = ("host",)
    date_hierarchy = "start"
    # There are millions of these after a year.
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: SampleRollup | None = None) -> bool:
        return False
