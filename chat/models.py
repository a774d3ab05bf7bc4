"""Conversations, their lanes and messages."""

from __future__ import annotations

from django.conf import settings as django_settings
from django.db import models
from django.db.models import Q

from chat.pictures import KINDS
from deployments.models import Deployment, Route
from deployments.strategies import strategy_title
from omni.roles.rights import CHAT, declared

MOST_LANES = 4


class Conversation(models.Model):
    owner = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="conversations",
    )
    title = models.CharField(max_length=200, blank=True)
    system_prompt = models.TextField(blank=True)
    settings = models.JSONField(
        default=dict, blank=True, help_text="temperature, top_p, max_tokens …"
    )
    is_blind = models.BooleanField(
        default=False, help_text="which of two lanes says what is hidden until the vote"
    )
    is_in_turn = models.BooleanField(
        default=False, help_text="lanes answer one after the other"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-changed_at",)
        permissions = [declared(CHAT)]
        indexes = [
            models.Index(fields=["owner", "-changed_at"], name="conversation_recent")
        ]

    def __str__(self) -> str:
        return self.title or f"Conversation {self.pk}"


class Lane(models.Model):
    """The column of one deployment, or of the one a route leads to, in a conversation."""

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="lanes"
    )
    position = models.PositiveSmallIntegerField(default=0)
    deployment = models.ForeignKey(
        Deployment, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    route = models.ForeignKey(
        Route, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    deployment_name = models.CharField(
        max_length=120, help_text="stays when the deployment or the route is deleted"
    )

    class Meta:
        ordering = ("conversation", "position")
        constraints = [
            models.UniqueConstraint(
                fields=["conversation", "position"], name="lane_position_once"
            ),
            models.UniqueConstraint(
                fields=["conversation", "deployment"], name="lane_deployment_once"
            ),
            models.UniqueConstraint(
                fields=["conversation", "route"], name="lane_route_once"
            ),
            models.CheckConstraint(
                condition=Q(position__lt=MOST_LANES), name="lane_position_below_four"
            ),
            models.CheckConstraint(
                condition=Q(deployment__isnull=True) | Q(route__isnull=True),
                name="lane_leads_to_one_thing",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def serving(self) -> Deployment | None:
        """What answers in it now; None when that was deleted."""
        if self.route:
            return self.route.deployment
        return self.deployment

    @property
    def strategy_title(self) -> str:
        """How what answers in it is spread over devices; empty when that was deleted."""
        if self.serving:
            return strategy_title(self.serving.strategy)
        return ""

    @property
    def name(self) -> str:
        """What is asked for, by its public name."""
        asked = self.route or self.deployment
        if asked:
            return asked.name
        return self.deployment_name


class Message(models.Model):
    """A user's turn (lane is null: all lanes see it) or one lane's answer to it."""

    class MessageRole(models.TextChoices):
        USER = "user", "User"
        ASSISTANT = "assistant", "Assistant"

    class State(models.TextChoices):
        STREAMING = "streaming", "Streaming"
        DONE = "done", "Done"
        STOPPED = "stopped", "Stopped"
        INTERRUPTED = "interrupted", "Interrupted"
        FAILED = "failed", "Failed"

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="messages"
    )
    lane = models.ForeignKey(
        Lane, on_delete=models.CASCADE, null=True, blank=True, related_name="messages"
    )
    parent = models.ForeignKey(
        "self", on_delete=models.CASCADE, null=True, blank=True, related_name="answers"
    )
    role = models.CharField(max_length=10, choices=MessageRole.choices)
    content = models.TextField(blank=True)
    thinking = models.TextField(blank=True)
    # Of several answers to one turn (regenerate), the active one is shown and sent along as
    # history.
    is_active = models.BooleanField(default=True)
    state = models.CharField(max_length=12, choices=State.choices, default=State.DONE)
    error = models.TextField(blank=True)
    finish_reason = models.CharField(max_length=40, blank=True)
    deployment_name = models.CharField(max_length=60, blank=True)
    ttft_ms = models.FloatField(
        null=True, blank=True, help_text="request sent to first token"
    )
    duration_ms = models.FloatField(null=True, blank=True)
    prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    cached_tokens = models.PositiveIntegerField(null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    prefill_tps = models.FloatField(null=True, blank=True)
    decode_tps = models.FloatField(null=True, blank=True)
    timings = models.JSONField(
        default=dict, blank=True, help_text="the engine's own timings object"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(role__in=["user", "assistant"]), name="message_role_known"
            ),
            models.CheckConstraint(
                condition=Q(
                    state__in=["streaming", "done", "stopped", "interrupted", "failed"]
                ),
                name="message_state_known",
            ),
            models.CheckConstraint(
                condition=Q(role="user", lane__isnull=True)
                | Q(role="assistant", lane__isnull=False),
                name="answers_belong_to_a_lane",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role}: {self.content[:40]}"

    @property
    def written_between(self) -> tuple[float, float] | None:
        """When it was sent to the engine and when it ended, in seconds; None while not known."""
        if self.finished_at is None or self.duration_ms is None:
            return None
        ended = self.finished_at.timestamp()
        return ended - self.duration_ms / 1000, ended


class AttachmentManager(models.Manager["Attachment"]):
    """The bytes stay in the database until somebody asks for them: threads show many images."""

    def get_queryset(self) -> models.QuerySet[Attachment]:
        return super().get_queryset().defer("data")


class Attachment(models.Model):
    """An image of a conversation. Until its question is sent it has no message; a question that was
    edited has those of its earlier version."""

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="attachments"
    )
    messages = models.ManyToManyField(Message, related_name="attachments")
    kind = models.CharField(
        max_length=4, choices=list(KINDS.items()), help_text="by its own bytes"
    )
    width = models.PositiveIntegerField(help_text="in pixels")
    height = models.PositiveIntegerField(help_text="in pixels")
    size_bytes = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    data = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AttachmentManager()

    class Meta:
        ordering = ("id",)
        # What follows relations, a deletion too, leaves the bytes where they are as well.
        base_manager_name = "objects"
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=list(KINDS)),
                name="attachment_kind_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{KINDS[self.kind]}, {self.width} × {self.height}"


class Contestant(models.Model):
    """A deployment as it was made when it answered: what a vote is for or against."""

    name = models.CharField(
        max_length=120, help_text="the deployment's, at the time of the vote"
    )
    made_of = models.CharField(
        max_length=500, blank=True, help_text="strategy and models, for people"
    )
    # Of all that may change what it answers; a deployment that was changed is another contestant.
    digest = models.CharField(max_length=64)
    seen_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name", "seen_at")
        constraints = [
            models.UniqueConstraint(
                fields=["name", "digest"], name="contestant_once_as_it_is_made"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Ballot(models.Model):
    """A turn of two lanes that is voted on: who stands where, and the verdict once there is one.

    It outlives its conversation, without the text: whoever deletes a chat does not take votes back.
    """

    class Verdict(models.TextChoices):
        LEFT = "left", "Left is better"
        RIGHT = "right", "Right is better"
        TIE = "tie", "Tie"
        BOTH_BAD = "both_bad", "Both bad"
        # Revealed without a vote.
        NONE = "none", "No vote"

    question = models.OneToOneField(
        Message, on_delete=models.SET_NULL, null=True, related_name="ballot"
    )
    # Votes of one conversation are alike, which the standings reckon with after it is deleted, too.
    conversation_number = models.PositiveBigIntegerField()
    voter = models.ForeignKey(
        django_settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
    )
    # Only what was hidden until the vote counts in the standings.
    is_blind = models.BooleanField()
    left_lane = models.ForeignKey(
        Lane, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    right_lane = models.ForeignKey(
        Lane, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    left = models.ForeignKey(Contestant, on_delete=models.PROTECT, related_name="+")
    right = models.ForeignKey(Contestant, on_delete=models.PROTECT, related_name="+")
    verdict = models.CharField(max_length=10, choices=Verdict.choices, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    verdict__in=["", "left", "right", "tie", "both_bad", "none"]
                ),
                name="ballot_verdict_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.left} or {self.right}: {self.verdict or 'not decided'}"

    @property
    def is_hidden(self) -> bool:
        """Whether the page may not tell yet who says what."""
        return self.is_blind and not self.verdict

    @property
    def is_vote(self) -> bool:
        """Whether somebody has said what is better; a reveal alone is none."""
        return self.verdict not in ("", self.Verdict.NONE)

    @property
    def preferred(self) -> Contestant | None:
        if self.verdict == self.Verdict.LEFT:
            return self.left
        if self.verdict == self.Verdict.RIGHT:
            return self.right
        return None
