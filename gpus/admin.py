from django.contrib import admin
from unfold.admin import ModelAdmin

from gpus.models import Device, Gpu, Host, SampleRollup


@admin.register(Host)
class HostAdmin(ModelAdmin):
    list_display = ("name", "cpu_name", "cpu_count", "ram_bytes", "nvml_state", "agent_seen_at")
    search_fields = ("name", "cpu_name")
    list_filter = ("nvml_state",)
    readonly_fields = (
        "agent_pid",
        "agent_seen_at",
        "nvml_state",
        "nvml_text",
        "driver_version",
        "created_at",
    )


@admin.register(Gpu)
class GpuAdmin(ModelAdmin):
    list_display = ("name", "host", "uuid", "memory_bytes", "compute_capability", "state", "seen_at")
    search_fields = ("name", "uuid", "pci_bus_id")
    list_filter = ("state", "host")
    readonly_fields = ("seen_at",)


@admin.register(Device)
class DeviceAdmin(ModelAdmin):
    list_display = ("name", "host", "kind", "gpu", "endpoint", "is_stand_in", "is_present")
    search_fields = ("name", "description", "endpoint")
    list_filter = ("kind", "is_stand_in", "is_present", "host")


@admin.register(SampleRollup)
class SampleRollupAdmin(ModelAdmin):
    list_display = ("start", "host", "card", "metric", "resolution_s", "minimum", "mean", "maximum", "count")
    search_fields = ("card", "metric")
    list_filter = ("resolution_s", "metric", "host")
    date_hierarchy = "start"

    def has_add_permission(self, request: object) -> bool:
        return False

    def has_change_permission(self, request: object, obj: object = None) -> bool:
        return False
