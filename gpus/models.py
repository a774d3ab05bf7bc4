"""Hosts, the cards in them, the devices engines see, and what was measured on them."""

from __future__ import annotations

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from gpus.ram import Reading


class Host(models.Model):
    """A machine that runs an agent."""

    name = models.SlugField(max_length=60, unique=True)
    cpu_name = models.CharField(max_length=200, blank=True)
    cpu_count = models.PositiveIntegerField(default=0)
    ram_bytes = models.BigIntegerField(default=0)
    ram_bandwidth_gbps = models.FloatField(
        null=True, blank=True, help_text="measured by copying on every core"
    )
    ram_measured_at = models.DateTimeField(null=True, blank=True)
    ram_busy_percent = models.FloatField(
        null=True, blank=True, help_text="other work of the processors meanwhile"
    )
    nvml_state = models.CharField(
        max_length=40, blank=True, help_text="ok, or why NVML gives no cards"
    )
    nvml_text = models.CharField(
        max_length=300, blank=True, help_text="why NVML gives no cards, in words"
    )
    nvml_fix = models.CharField(
        max_length=300, blank=True, help_text="what to do about it"
    )
    driver_version = models.CharField(max_length=40, blank=True)
    stand_ins = models.PositiveSmallIntegerField(
        default=0,
        help_text="how many CPU-backed stand-ins somebody switched on where there is no GPU",
    )
    problems = models.JSONField(
        default=dict, blank=True, help_text="what its agent could not do, by work"
    )
    agent_pid = models.PositiveIntegerField(null=True, blank=True)
    agent_seen_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def ram_reading(self) -> Reading | None:
        """How fast its memory was when it was measured; None before."""
        if self.ram_bandwidth_gbps is None:
            return None
        # Older versions kept no more than the figure: it may have been taken under load.
        return Reading(
            self.ram_bandwidth_gbps,
            100.0 if self.ram_busy_percent is None else self.ram_busy_percent,
        )

    @property
    def ram_was_quiet(self) -> bool:
        return self.ram_reading is not None and self.ram_reading.is_quiet


class Gpu(models.Model):
    """A card as NVML sees it; the UUID is its identity, an index never is."""

    class State(models.TextChoices):
        OK = "ok", "OK"
        LOST = "lost", "Lost from the bus"
        ERROR = "error", "Cannot be read"
        ABSENT = "absent", "No longer present"

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="gpus")
    uuid = models.CharField(max_length=80, unique=True)
    index = models.PositiveSmallIntegerField(default=0)
    name = models.CharField(max_length=120)
    pci_bus_id = models.CharField(max_length=40, blank=True)
    memory_bytes = models.BigIntegerField(null=True, blank=True)
    compute_capability = models.CharField(max_length=10, blank=True)
    pcie_generation_max = models.PositiveSmallIntegerField(null=True, blank=True)
    pcie_width_max = models.PositiveSmallIntegerField(null=True, blank=True)
    power_limit_watts = models.FloatField(null=True, blank=True)
    memory_bandwidth_gbps = models.FloatField(
        null=True, blank=True, help_text="of its own memory, at full clock"
    )
    tflops = models.FloatField(
        null=True, blank=True, help_text="single precision, at full clock"
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.OK)
    error = models.CharField(max_length=300, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("host", "index")
        verbose_name = "GPU"
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["ok", "lost", "error", "absent"]),
                name="gpu_state_known",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.host})"


class Device(models.Model):
    """A place where an engine can put layers, under the engine's own name."""

    class Kind(models.TextChoices):
        CPU = "cpu", "CPU"
        CUDA = "cuda", "CUDA"
        ROCM = "rocm", "ROCm"
        VULKAN = "vulkan", "Vulkan"
        METAL = "metal", "Metal"
        SYCL = "sycl", "SYCL"
        RPC = "rpc", "RPC"
        OTHER = "other", "Other"

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="devices")
    name = models.CharField(max_length=40, help_text="CPU, CUDA0, RPC0, Vulkan0 …")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    gpu = models.ForeignKey(
        Gpu, on_delete=models.SET_NULL, null=True, blank=True, related_name="devices"
    )
    description = models.CharField(max_length=200, blank=True)
    memory_bytes = models.BigIntegerField(null=True, blank=True)
    endpoint = models.CharField(
        max_length=80, blank=True, help_text="address:port of an RPC server"
    )
    is_stand_in = models.BooleanField(
        default=False, help_text="a local RPC server on the CPU, in place of a GPU"
    )
    is_present = models.BooleanField(default=True)
    position = models.PositiveSmallIntegerField(default=0)
    bandwidth_gbps = models.FloatField(
        "memory bandwidth, GB/s",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.1)],
        help_text="instead of what driver, data sheet or measurement say; empty leaves it to them",
    )
    tflops = models.FloatField(
        "TFLOPS, single precision",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.01)],
        help_text="instead of what driver or data sheet say; empty leaves it to them",
    )

    class Meta:
        ordering = ("host", "position", "name")
        constraints = [
            models.UniqueConstraint(
                fields=["host", "name"], name="device_name_once_per_host"
            ),
            models.UniqueConstraint(
                fields=["host", "endpoint"],
                condition=~Q(endpoint=""),
                name="device_endpoint_once_per_host",
            ),
            models.CheckConstraint(
                condition=Q(kind="rpc") | Q(is_stand_in=False), name="stand_in_is_rpc"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def card_key(self) -> str:
        """Under which key telemetry reports it: the GPU's UUID, else the device's own name."""
        if self.gpu:
            return self.gpu.uuid
        return self.name


class HistorySubject(models.Model):
    """What has a history: a card, the host itself, a deployment."""

    host = models.ForeignKey(
        Host, on_delete=models.CASCADE, related_name="history_subjects"
    )
    key = models.CharField(
        max_length=80, help_text="GPU UUID, device name, 'host', or 'deployment:<id>'"
    )
    title = models.CharField(
        max_length=120, blank=True, help_text="its name, which stays when it is deleted"
    )
    # In the order in which they came: rows have places in it. It only grows.
    metrics = models.JSONField(default=list, blank=True)

    class Meta:
        ordering = ("host", "key")
        constraints = [
            models.UniqueConstraint(fields=["host", "key"], name="history_subject_once")
        ]

    def __str__(self) -> str:
        return self.title or self.key


class HistoryBucket(models.Model):
    """All metrics of one subject over one span of time (gpus/rollup.py says how they stand in
    it)."""

    subject = models.ForeignKey(
        HistorySubject,
        on_delete=models.CASCADE,
        related_name="buckets",
        db_index=False,
    )
    resolution_s = models.PositiveIntegerField()
    start_s = models.BigIntegerField(help_text="seconds since 1970")
    figures = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["subject", "resolution_s", "start_s"],
                name="history_bucket_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.subject_id}, {self.resolution_s} s from {self.start_s}"


class HistoryMark(models.Model):
    """Something that happened and is marked on charts: a deployment started, a benchmark ran."""

    class Kind(models.TextChoices):
        STARTED = "started", "Started"
        STOPPED = "stopped", "Stopped"
        CRASHED = "crashed", "Crashed"
        RUN = "run", "Benchmark"

    host = models.ForeignKey(
        Host, on_delete=models.CASCADE, related_name="history_marks", db_index=False
    )
    at = models.DateTimeField()
    kind = models.CharField(max_length=10, choices=Kind.choices)
    subject = models.CharField(
        max_length=80, blank=True, help_text="key of the subject; empty: all of them"
    )
    text = models.CharField(max_length=300)

    class Meta:
        ordering = ("-at", "-pk")
        indexes = [models.Index(fields=["host", "at"], name="history_mark_by_time")]

    def __str__(self) -> str:
        return f"{self.text} ({self.at:%Y-%m-%d %H:%M:%S})"
