"""What names devices to an engine of the llama.cpp family: flags, variables, RPC endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.planning.plan import DeviceFacts
from omni.errors import OmniError


@dataclass(frozen=True)
class DeviceFlags:
    """Where the engine computes, in its own words: flags, environment, and the names of devices.

    `endpoints` are those of the RPC devices, by their name in the panel, which must serve first.
    """

    flags: tuple[str, ...]
    env: Mapping[str, str]
    endpoints: Mapping[str, str]
    devices: tuple[str, ...]


def accelerators(devices: tuple[DeviceFacts, ...]) -> tuple[DeviceFacts, ...]:
    return tuple(device for device in devices if device.kind != "cpu")


def check_apart(used: tuple[DeviceFacts, ...]) -> None:
    """Stand-ins run where no other host can be reached. Raises OmniError (stand_ins_apart)."""
    servers = [device for device in used if device.kind == "rpc"]
    if len({device.is_stand_in for device in servers}) > 1:
        text = "Stand-ins and devices of other hosts cannot be used together."
        raise OmniError(
            "stand_ins_apart", text, "Choose the CPU in place of the stand-ins."
        )


def rpc_endpoints_of(used: tuple[DeviceFacts, ...]) -> Mapping[str, str]:
    """Name → address, of those that are used alone: a server that another engine holds would let
    this one wait."""
    endpoints = {
        device.name: device.endpoint for device in used if device.kind == "rpc"
    }
    for name, endpoint in endpoints.items():
        if not endpoint:
            text = f"The device {name} has no address."
            raise OmniError(
                "device_not_served",
                text,
                "The agent gives it one; look at the Rig page.",
                retry=True,
            )
    return endpoints
