"""Deployments, the processes they consist of, and every change of state those went through."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings as django_settings
from django.db import models
from django.db.models import Q

from deployments.formats.kinds import WITHOUT_TEXT, Kind
from deployments.models.library import Engine, Model
from deployments.names import LENGTH
from deployments.planning.launch_facts import LaunchFacts, read_launch_facts
from deployments.states import (
    DEFAULT_STRATEGY,
    DesiredState,
    InstanceState,
    deployment_state,
    shown_state,
)
from gpus.models import Device, Host
from omni.roles.rights import OPERATE, declared


class Role(models.TextChoices):
    MODEL = "model", "Model"
    TARGET = "target", "Target"
    DRAFT = "draft", "Draft"
    PROJECTOR = "projector", "Projector"
    PREFILL = "prefill", "Prefill"
    DECODE = "decode", "Decode"


# Their models answer nothing by themselves.
HELPING_ROLES = (Role.DRAFT, Role.PROJECTOR)
# A projector is loaded by its model's process.
PROCESS_ROLES = [choice for choice in Role.choices if choice[0] != Role.PROJECTOR]


class Deployment(models.Model):
    """A plan that an admin keeps, and whether it ought to run."""

    class Desired(models.TextChoices):
        RUNNING = DesiredState.RUNNING.value, "Running"
        STOPPED = DesiredState.STOPPED.value, "Stopped"

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="deployments")
    name = models.SlugField(max_length=LENGTH["deployments"], unique=True)
    # One of strategies.STRATEGIES. Forms, services and the reader of rig files check that, not the
    # database: a new strategy needs no migration.
    strategy = models.CharField(max_length=20, default=DEFAULT_STRATEGY)
    engine = models.ForeignKey(
        Engine, on_delete=models.PROTECT, related_name="deployments"
    )
    external_model = models.CharField(
        max_length=200,
        blank=True,
        help_text="on an external server, under the name it has there",
    )
    settings = models.JSONField(default=dict, blank=True)
    extra_args = models.JSONField(default=list, blank=True)
    purposes = models.JSONField(
        default=list,
        blank=True,
        help_text="what it is for and auto may send here, such as coding",
    )
    desired = models.CharField(
        max_length=10, choices=Desired.choices, default=Desired.STOPPED
    )
    # Grows with every change and every Start: an instance made for an older generation is replaced.
    generation = models.PositiveIntegerField(default=1)
    is_deleting = models.BooleanField(
        default=False, help_text="goes away once its processes are gone"
    )
    # A number and no key: the trial of a benchmark that somebody deleted goes away, too.
    trial_of = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        editable=False,
        help_text="number of the benchmark that it was made for, after which it goes away",
    )
    # Ought to run and has given its memory back; the next request for it takes this away.
    is_unloaded = models.BooleanField(default=False)
    unloaded_why = models.CharField(max_length=200, blank=True)
    ends_now = models.BooleanField(
        default=False, help_text="answers in progress are not waited for"
    )
    error_code = models.CharField(max_length=60, blank=True)
    error = models.TextField(blank=True, help_text="why no instance could be made")
    created_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name",)
        permissions = [declared(OPERATE)]
        constraints = [
            models.CheckConstraint(
                condition=Q(desired__in=list(DesiredState)),
                name="deployment_desired_known",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_external(self) -> bool:
        """Whether its server is external: nothing is started for it, it is only offered."""
        return bool(self.external_model)

    @property
    def is_trial(self) -> bool:
        """Whether it was made for one benchmark; nobody but that is offered it."""
        return self.trial_of is not None

    @property
    def kind(self) -> str:
        """What it answers with: text, unless its model gives vectors or scores."""
        kinds = [binding.model.kind for binding in self.bindings.all()]
        return next((kind for kind in kinds if kind in WITHOUT_TEXT), Kind.TEXT.value)

    @property
    def gives_text(self) -> bool:
        return self.kind == Kind.TEXT

    @classmethod
    def giving_text(cls) -> models.QuerySet[Deployment]:
        """What can be chatted with, once it runs."""
        return cls.objects.filter(is_deleting=False, trial_of=None).exclude(
            bindings__model__kind__in=WITHOUT_TEXT
        )

    @property
    def state(self) -> str:
        """What its instances add up to (see deployments.states)."""
        states = [self._state_of(instance) for instance in self.instances.all()]
        return deployment_state(
            states,
            desired=self.desired,
            error=bool(self.error),
            unloaded=self.is_unloaded,
        )

    def _state_of(self, instance: Instance) -> str:
        """Of a start that somebody asked for after a failure nothing is known until the agent has
        tried."""
        is_earlier = (
            instance.state == InstanceState.FAILED
            and instance.generation < self.generation
        )
        if is_earlier and self.ought_to_run:
            return InstanceState.STARTING
        return instance.state

    @property
    def can_be_stopped(self) -> bool:
        """Of one that has failed there is something to stop where a part of it runs."""
        has_processes = any(instance.pid for instance in self.instances.all())
        return self.desired == self.Desired.RUNNING and (
            self.state != InstanceState.FAILED or has_processes
        )

    @property
    def shown_state(self) -> str:
        """What people and programs are told."""
        return shown_state(self.state, unloaded=self.is_unloaded)

    @property
    def drains_until(self) -> datetime | None:
        """When answers in progress are cut off, while they are waited for."""
        return max(
            (i.drains_until for i in self.instances.all() if i.drains_until),
            default=None,
        )

    @property
    def is_draining(self) -> bool:
        return self.drains_until is not None

    @property
    def ought_to_run(self) -> bool:
        """Whether its processes should be there now; on an external server it has none."""
        is_wanted = (
            self.desired == self.Desired.RUNNING
            and not self.is_deleting
            and not self.is_unloaded
        )
        return is_wanted and not self.is_external


class Binding(models.Model):
    """Which model plays a role in a deployment, and on which devices."""

    deployment = models.ForeignKey(
        Deployment, on_delete=models.CASCADE, related_name="bindings"
    )
    role = models.CharField(max_length=10, choices=Role.choices)
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="bindings")
    devices = models.JSONField(default=list, help_text="device names, in order")

    class Meta:
        ordering = ("deployment", "role")
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "role"], name="role_once_per_deployment"
            ),
            models.CheckConstraint(
                condition=Q(role__in=Role.values), name="binding_role_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role}: {self.model}"


class Instance(models.Model):
    """One process: an engine of a deployment, or the RPC server behind a device."""

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="instances")
    deployment = models.ForeignKey(
        Deployment,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="instances",
    )
    device = models.OneToOneField(
        Device, on_delete=models.CASCADE, null=True, blank=True, related_name="instance"
    )
    role = models.CharField(
        max_length=10, choices=[*PROCESS_ROLES, ("rpc", "RPC server")]
    )
    ordinal = models.PositiveSmallIntegerField(default=0)
    state = models.CharField(
        max_length=10,
        choices=[(s, s) for s in InstanceState],
        default=InstanceState.STOPPED,
    )
    generation = models.PositiveIntegerField(
        default=0, help_text="of the deployment, when it was started"
    )
    address = models.CharField(
        max_length=300,
        blank=True,
        help_text="of an external server; empty: a process of ours",
    )
    socket = models.CharField(
        max_length=108,
        blank=True,
        help_text="the Unix socket on which a process of ours listens",
    )
    port = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="on which it listens where its engine knows no sockets",
    )
    pid = models.PositiveIntegerField(null=True, blank=True)
    start_time = models.FloatField(
        null=True, blank=True, help_text="of the process: seconds since the epoch"
    )
    # The command as pages show it and as it is compared; what it means stands in `launch`.
    argv = models.JSONField(default=list, blank=True)
    env = models.JSONField(default=dict, blank=True)
    launch = models.JSONField(
        default=dict, blank=True, help_text="what it was started with (LaunchFacts)"
    )
    restarts = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(
        default=0, help_text="in a row, since it last was ready for long"
    )
    next_start_at = models.DateTimeField(null=True, blank=True)
    exit_code = models.IntegerField(
        null=True, blank=True, help_text="negative: ended by that signal"
    )
    error_code = models.CharField(max_length=60, blank=True)
    error = models.TextField(blank=True)
    log_line = models.TextField(
        blank=True, help_text="the line of the log that tells the cause"
    )
    log_path = models.CharField(max_length=500, blank=True)
    # Of the model's files when it was started: bytes and time of change.
    file_stamp = models.CharField(max_length=80, blank=True)
    # Of the process that was checked last: when it began, how its first answer was, and what is not
    # as planned.
    checked_ticks = models.BigIntegerField(null=True, blank=True)
    judgement = models.CharField(max_length=12, blank=True)
    warning = models.TextField(blank=True)
    drains_until = models.DateTimeField(
        null=True, blank=True, help_text="answers in progress may finish until then"
    )
    started_at = models.DateTimeField(null=True, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("deployment", "role", "ordinal")
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "role", "ordinal"], name="instance_once_per_role"
            ),
            models.UniqueConstraint(fields=["host", "port"], name="port_once_per_host"),
            models.UniqueConstraint(
                fields=["host", "socket"],
                condition=~Q(socket=""),
                name="socket_once_per_host",
            ),
            models.CheckConstraint(
                condition=Q(state__in=list(InstanceState)), name="instance_state_known"
            ),
            models.CheckConstraint(
                condition=Q(port__isnull=True) | Q(port__range=(1, 65535)),
                name="port_in_range",
            ),
            models.CheckConstraint(
                condition=Q(deployment__isnull=False) ^ Q(device__isnull=False),
                name="instance_has_one_owner",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.deployment or self.device}/{self.role}"

    @property
    def launch_facts(self) -> LaunchFacts:
        """What it was started with; nothing where the row does not tell."""
        try:
            return read_launch_facts(self.launch)
        except ValueError:
            return LaunchFacts()

    @property
    def listens_at(self) -> str:
        """The address as pages and documents show it; empty where nothing listens."""
        if self.address or self.socket:
            return self.address or self.socket
        if self.device:
            host = self.device.endpoint.rpartition(":")[0]
        else:
            host = "127.0.0.1"
        if self.port:
            return f"{host}:{self.port}"
        return ""


class Transition(models.Model):
    """One change of an instance's state."""

    instance = models.ForeignKey(
        Instance, on_delete=models.CASCADE, related_name="transitions"
    )
    at = models.DateTimeField(auto_now_add=True)
    old = models.CharField(max_length=10)
    new = models.CharField(max_length=10)
    reason = models.TextField(blank=True)
    pid = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("-at", "-id")
        indexes = [
            models.Index(fields=["instance", "-at"], name="transition_by_instance")
        ]

    def __str__(self) -> str:
        return f"{self.instance_id}: {self.old} → {self.new}"
