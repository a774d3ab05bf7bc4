"""What can be deployed: engines found on hosts, models found in folders."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from deployments.formats.kinds import DEPLOYABLE, DRAFTING, TITLES, USES, Kind, article
from deployments.names import HUB, LENGTH
from gpus.models import Host
from omni.roles.rights import MANAGE_LIBRARY, declared

# Plain texts: migrations keep them.
KINDS = [(kind.value, TITLES[kind]) for kind in Kind]


class Engine(models.Model):
    """An installed inference server, with what it said of itself when it was asked."""

    # The flavour of an external server; the others are the registry's in engines/.
    EXTERNAL = "external"

    class State(models.TextChoices):
        OK = "ok", "OK"
        MISSING = "missing", "Not found"
        BROKEN = "broken", "Does not run"

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="engines")
    name = models.SlugField(max_length=LENGTH["engines"], unique=True)
    flavour = models.CharField(max_length=20)
    path = models.CharField(max_length=500)
    build = models.CharField(max_length=200, blank=True)
    flags = models.JSONField(
        default=list, blank=True, help_text="every flag that --help lists"
    )
    devices = models.JSONField(
        default=list, blank=True, help_text="what --list-devices prints"
    )
    offers = models.JSONField(
        default=list,
        blank=True,
        help_text="an external server's own names of its models",
    )
    # Architecture → whether this build has it, of those that it was asked for.
    archs = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OK)
    error = models.TextField(blank=True)
    # None: nothing was ever answered through it here.
    ran_at = models.DateTimeField(
        null=True, blank=True, help_text="when a deployment on it first was ready here"
    )
    probed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.UniqueConstraint(
                fields=["host", "path"], name="engine_path_once_per_host"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["ok", "missing", "broken"]),
                name="engine_state_known",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_external(self) -> bool:
        return self.flavour == self.EXTERNAL

    @property
    def state_text(self) -> str:
        """An external server may well run: it is only known not to be of use now."""
        away = self.is_external and self.state == self.State.BROKEN
        if away:
            return "Not usable now"
        return str(self.get_state_display())

    @property
    def was_verified(self) -> bool:
        """Whether it has once run a model on this machine."""
        return self.ran_at is not None


class LibraryFolder(models.Model):
    """A folder whose GGUF files and model folders belong to the library."""

    path = models.CharField(max_length=500, unique=True)
    is_packaged = models.BooleanField(
        default=False, help_text="belongs to an installed package"
    )
    scanned_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)
    # What lies there, looks like a model and could not be looked at: one sentence each.
    skipped = models.JSONField(default=list, blank=True)

    class Meta:
        ordering = ("path",)

    def __str__(self) -> str:
        return self.path


class Model(models.Model):
    """One GGUF, all its shards, or one folder with safetensors, with what its headers say."""

    class Format(models.TextChoices):
        GGUF = "gguf", "GGUF"
        FOLDER = "folder", "Folder with safetensors"

    class State(models.TextChoices):
        OK = "ok", "Ready"
        INCOMPLETE = "incomplete", "Incomplete"
        BROKEN = "broken", "Cannot be read"
        MISSING = "missing", "File is gone"

    name = models.SlugField(max_length=LENGTH["models"], unique=True)
    path = models.CharField(
        max_length=500, unique=True, help_text="the first shard, or the folder"
    )
    format = models.CharField(max_length=8, choices=Format.choices, default=Format.GGUF)
    kind = models.CharField(
        max_length=16, choices=KINDS, default=Kind.TEXT.value, db_index=True
    )
    # All files: the shards of a GGUF, what belongs to the model in a folder.
    shards = models.JSONField(default=list, blank=True)
    title = models.CharField(max_length=200, blank=True)
    arch = models.CharField(max_length=60, blank=True)
    quant = models.CharField(max_length=40, blank=True)
    n_params = models.BigIntegerField(null=True, blank=True)
    size_bytes = models.BigIntegerField(default=0)
    n_layer = models.PositiveIntegerField(null=True, blank=True)
    n_ctx_train = models.PositiveIntegerField(null=True, blank=True)
    facts = models.JSONField(default=dict, blank=True)
    # What memory and speed depend on (planning.architecture.ModelShape), and what drafts are
    # compared by.
    shape = models.JSONField(default=dict, blank=True)
    vocab = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=12, choices=State.choices, default=State.OK)
    error = models.TextField(blank=True)
    modified_ns = models.BigIntegerField(default=0)
    # Not unique: a copy has its original's. Only a file that has gone is looked for by it.
    fingerprint = models.CharField(max_length=64, blank=True, db_index=True)
    # Which version of the reader filled the row; one that an older version filled is read again.
    read_version = models.PositiveSmallIntegerField(default=0)
    added_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        permissions = [declared(MANAGE_LIBRARY)]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["ok", "incomplete", "broken", "missing"]),
                name="model_state_known",
            ),
            models.CheckConstraint(
                condition=Q(format__in=["gguf", "folder"]), name="model_format_known"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=[name for name, _ in KINDS]),
                name="model_kind_known",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_folder(self) -> bool:
        return self.format == self.Format.FOLDER

    @property
    def is_at_hub(self) -> bool:
        """Whether it is no model of the library: read at a hub, to be planned with and not saved
        (services/hub_models.py)."""
        return self.name.startswith(HUB)

    @classmethod
    def deployable(cls) -> models.QuerySet[Model]:
        """What can be served by itself now."""
        return cls.objects.filter(state=cls.State.OK, kind__in=DEPLOYABLE)

    @classmethod
    def drafting(cls) -> models.QuerySet[Model]:
        """What can play the role of a draft now."""
        return cls.objects.filter(state=cls.State.OK, kind__in=DRAFTING)

    @classmethod
    def projecting(cls) -> models.QuerySet[Model]:
        """What can play the role of a projector now."""
        return cls.objects.filter(state=cls.State.OK, kind=Kind.PROJECTOR)

    @property
    def is_deployable(self) -> bool:
        """Whether an engine can serve it by itself."""
        return self.state == self.State.OK and self.kind in DEPLOYABLE

    @property
    def kind_title(self) -> str:
        return TITLES[Kind(self.kind)]

    @property
    def kind_article(self) -> str:
        return article(self.kind)

    @property
    def use(self) -> str:
        """What it is for, where it is no text model."""
        return USES[Kind(self.kind)]
