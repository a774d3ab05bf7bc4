"""Reads the routing table out of the database and keeps it in memory for requests."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from django.db.models import Prefetch, QuerySet

from deployments.advice.guess import ModelTraits, guessed_purposes
from deployments.engines import FLAVOURS
from deployments.engines.external import LLAMA_CPP, left_out
from deployments.engines.llama_cpp import LlamaCpp
from deployments.external.keys import key_name
from deployments.formats.projectors import Medium, projector_of
from deployments.gateway.auto.purposes import purposes_of
from deployments.gateway.auto.rules import RouteRules, read_rules
from deployments.gateway.kv_transfer_facts import kv_transfer_facts
from deployments.gateway.snapshot import Snapshot
from deployments.gateway.table import ExternalServer, Passage, Peer, Serving, Table
from deployments.instances.address import EngineAddress
from deployments.instances.connecting import address_of
from deployments.models import HELPING_ROLES, Binding, Deployment, Instance, Role, Route
from deployments.planning.settings import context_tokens, with_defaults
from deployments.states import InstanceState
from deployments.strategies import STRATEGIES
from omni.database import DatabasePool, ReadOnChange
from omni.errors import OmniError

log = logging.getLogger(__name__)

_in_database = DatabasePool("gateway-table", 1)


async def routing_table() -> Table:
    """As it was less than a second ago; while it cannot be read, as it was last.

    Raises OmniError (database_unavailable) while it could never be read.
    """
    return await stored_table.current()


async def fresh_table() -> Table:
    """As it is now."""
    return await stored_table.as_of_now()


def forget_table() -> None:
    """The next request reads the database again."""
    stored_table.changed()


def read_table() -> Table:
    found = (
        Deployment.objects.select_related("host", "engine")
        .prefetch_related("instances", Prefetch("bindings", _bindings()))
        .filter(is_deleting=False)
    )
    media = _media()
    deployments = {}
    for each in found:
        try:
            taken = media.get(each.pk, frozenset())
            deployments[each.name] = serving(each, taken)
        except OmniError as error:
            # One row that cannot be read takes no other with it.
            log.warning("deployment %s cannot be asked: %s", each.name, error)
    routes = list(Route.objects.select_related("deployment"))
    return Table(
        deployments,
        {route.name: route.deployment.name for route in routes},
        {route.name: rules for route in routes if (rules := _rules_of(route))},
    )


stored_table: Snapshot[Table] = Snapshot(
    "routing table", _in_database(ReadOnChange(read_table))
)


def _rules_of(route: Route) -> RouteRules | None:
    """None for one that only leads to a deployment."""
    if not route.rules and not route.fallbacks:
        return None
    try:
        rules = read_rules(route.rules)
    except OmniError as error:
        log.warning("the rules of route %s are passed over: %s", route.name, error)
        rules = ()
    return RouteRules(route.deployment.name, rules, tuple(route.fallbacks))


def _bindings() -> QuerySet[Binding]:
    """Without the long columns of a model: this is read twice a second."""
    columns = (
        "deployment_id",
        "role",
        "model__name",
        "model__kind",
        "model__n_ctx_train",
    )
    return Binding.objects.select_related("model").only(*columns)


def _media() -> dict[int, frozenset[Medium]]:
    """Deployment → what its projector lets it take: the few whose headers are looked into."""
    rows = Binding.objects.filter(role=Role.PROJECTOR)
    found = {
        deployment: projector_of(facts)
        for deployment, facts in rows.values_list("deployment", "model__facts")
    }
    return {deployment: each.media for deployment, each in found.items() if each}


def taken_by(
    deployments: Iterable[Deployment],
) -> dict[str, frozenset[Medium] | None]:
    """Name → what it takes besides text; None where that is not known."""
    media = _media()
    return {
        each.name: _takes(each, media.get(each.pk, frozenset())) for each in deployments
    }


def _takes(
    deployment: Deployment, media: frozenset[Medium]
) -> frozenset[Medium] | None:
    """Of other engines than llama.cpp and its like it is not known what they take."""
    flavour = FLAVOURS.get(deployment.engine.flavour)
    if deployment.is_external or flavour is None or not flavour.takes_projector:
        return None
    return media


def serving(deployment: Deployment, media: frozenset[Medium] = frozenset()) -> Serving:
    """`media` is what its projector lets it take."""
    state = str(deployment.state)
    instances = list(deployment.instances.all())
    strategy = STRATEGIES.get(deployment.strategy)
    answering = next(
        (i for i in instances if strategy and i.role == strategy.serving_role), None
    )
    passage = Passage(strategy.passage) if strategy else Passage.DIRECT
    settings = with_defaults(deployment.settings)
    written = _written_purposes(deployment)
    peers = {i.role: _peer(i, address) for i in instances if (address := _address(i))}
    return Serving(
        name=deployment.name,
        state=state,
        address=_address(answering),
        alias=deployment.external_model or _alias(answering, deployment.name),
        error=deployment.error or next((i.error for i in instances if i.error), ""),
        created=int(deployment.created_at.timestamp()),
        passage=passage,
        peers=peers,
        kv_transfer=(
            kv_transfer_facts(deployment, answering)
            if passage == Passage.KV_TRANSFER and answering
            else None
        ),
        external=_external_server(deployment),
        pk=deployment.pk,
        is_wanted=deployment.desired == Deployment.Desired.RUNNING
        and not deployment.is_deleting,
        is_unloaded=deployment.is_unloaded,
        is_outdated=any(i.generation != deployment.generation for i in instances),
        drain_s=int(settings["drain_s"]),
        flavour=_flavour(deployment),
        slots=0 if deployment.is_external else int(settings["parallel"]),
        ends_now=deployment.ends_now,
        kind=deployment.kind,
        is_trial=deployment.is_trial,
        purposes=written or _guessed(deployment),
        is_guessed=not written,
        context_tokens=_context_of_a_request(deployment, settings),
        takes=_takes(deployment, media),
    )


def _written_purposes(deployment: Deployment) -> tuple[str, ...]:
    """What somebody wrote down of what it is for."""
    return purposes_of(deployment.purposes)


def _guessed(deployment: Deployment) -> tuple[str, ...]:
    """Only what names tell: to chat is no purpose of its own, almost any model can."""
    bindings = deployment.bindings.all()
    models = [
        binding.model.name for binding in bindings if binding.role not in HELPING_ROLES
    ]
    names = (deployment.name, deployment.external_model, *models)
    return guessed_purposes(
        ModelTraits(names, kind=deployment.kind, has_chat_template=False)
    )


def _context_of_a_request(
    deployment: Deployment, settings: Mapping[str, int | str]
) -> int:
    """In tokens; 0 where it is not known, as of an external server."""
    if deployment.is_external:
        return 0
    bindings = [b for b in deployment.bindings.all() if b.role not in HELPING_ROLES]
    trained = [b.model.n_ctx_train for b in bindings]
    together = context_tokens(deployment.settings, next(iter(trained), None))
    if settings["kv_unified"] == "on":
        return together
    return together // max(int(settings["parallel"]), 1)


def _flavour(deployment: Deployment) -> str:
    """What takes the same fields: an external llama-server is one all the same."""
    is_llama_cpp = deployment.is_external and deployment.engine.build == LLAMA_CPP
    if is_llama_cpp:
        return LlamaCpp.flavour
    return deployment.engine.flavour


def _external_server(deployment: Deployment) -> ExternalServer | None:
    if not deployment.is_external:
        return None
    engine = deployment.engine
    return ExternalServer(key_name(engine.pk, engine.path), left_out(engine.build))


def _peer(instance: Instance, address: EngineAddress) -> Peer:
    return Peer(address, f"{instance.pid} {instance.start_time}", instance.file_stamp)


def _address(instance: Instance | None) -> EngineAddress | None:
    if instance is None or instance.state != InstanceState.READY:
        return None
    if instance.address:
        # Nothing has to end first: Stop holds at once.
        owner = instance.deployment
        is_offered = owner and owner.desired == Deployment.Desired.RUNNING
        if is_offered:
            return EngineAddress(instance.address)
        return None
    return address_of(instance)


def _alias(instance: Instance | None, default: str) -> str:
    """The name under which the engine knows its model."""
    return (instance.launch_facts.alias if instance else "") or default
