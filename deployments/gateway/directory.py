"""The routing table, read from the database at most twice a second."""

from __future__ import annotations

import asyncio
import time

from deployments.engines.external import LLAMA_CPP, left_out
from deployments.engines.llama_cpp import LlamaCpp
from deployments.external.keys import key_name
from deployments.formats.kinds import WITHOUT_TEXT, Kind
from deployments.gateway.kv_transfer_facts import kv_transfer_facts
from deployments.gateway.routing import ExternalServer, Passage, Peer, Serving, Table
from deployments.instances.address import EngineAddress
from deployments.instances.connecting import address_of
from deployments.models import Binding, Deployment, Instance, Route
from deployments.planning.settings import with_defaults
from deployments.states import InstanceState
from deployments.strategies import STRATEGIES
from omni.database import DatabasePool

REMEMBERED_S = 0.5

_in_database = DatabasePool("gateway-table", 1)
_table: tuple[float, Table] = (-REMEMBERED_S, Table())
_loading: asyncio.Future[Table] | None = None


async def routing_table() -> Table:
    """As it was at most half a second ago; those who ask while it is read share one reading."""
    global _loading
    read_at, table = _table
    if time.monotonic() - read_at < REMEMBERED_S:
        return table
    loop = asyncio.get_running_loop()
    if _loading is None or _loading.done() or _loading.get_loop() is not loop:
        _loading = loop.create_task(_refresh())
    # One caller that goes away must not take the reading from the others.
    return await asyncio.shield(_loading)


async def _refresh() -> Table:
    global _table
    began = time.monotonic()
    table = await _in_database(read_table)()
    _table = (began, table)
    return table


async def fresh_table() -> Table:
    """As it is now."""
    forget_table()
    return await routing_table()


def forget_table() -> None:
    """The next request reads the database again."""
    global _table
    _table = (-REMEMBERED_S, Table())


def read_table() -> Table:
    found = (
        Deployment.objects.select_related("host", "engine")
        .prefetch_related("instances")
        .filter(is_deleting=False)
    )
    without_text = Binding.objects.filter(model__kind__in=WITHOUT_TEXT).values_list(
        "deployment", "model__kind"
    )
    kinds = dict(without_text)
    deployments = {
        deployment.name: serving(deployment, kinds.get(deployment.pk, Kind.TEXT))
        for deployment in found
    }
    return Table(
        deployments, dict(Route.objects.values_list("name", "deployment__name"))
    )


def serving(deployment: Deployment, kind: str = Kind.TEXT) -> Serving:
    state = str(deployment.state)
    instances = list(deployment.instances.all())
    strategy = STRATEGIES.get(deployment.strategy)
    answering = next(
        (i for i in instances if strategy and i.role == strategy.serving_role), None
    )
    passage = Passage(strategy.passage) if strategy else Passage.DIRECT
    settings = with_defaults(deployment.settings)
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
        kind=kind,
        is_trial=deployment.is_trial,
    )


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
