"""llama.cpp's llama-server: its command line, and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from deployments.engines.base import (
    Command,
    EngineFlavour,
    ListedDevice,
    Question,
    ServerSpec,
    Tokens,
)
from deployments.engines.device_flags import (
    DeviceFlags,
    accelerators,
    check_apart,
    rpc_endpoints_of,
)
from deployments.engines.endpoints import EVERY, RERANK, RESPONSES
from deployments.engines.flags import allowed_args, require_flags
from deployments.engines.request_fields import FLAG, TEXTS, Taken, number, whole
from deployments.engines.spellings import first_known, listed_flags
from deployments.formats.kinds import WITHOUT_TEXT, Kind
from deployments.planning.plan import PORT, SOCKET, PlanRequest
from deployments.planning.settings import (
    ALL,
    AUTO,
    KV_CACHE_TYPES,
    SHARES,
    context_tokens,
    with_defaults,
)
from omni.errors import OmniError
from omni.units import MIB

# More layers than any model has: all of them, for every build.
EVERY_LAYER = "999"
# Of a text that becomes one vector: the memory for it grows with its length.
LONGEST_PIECE = 8192
# Kept among the flags of a build from before -fa took a value; no flag can look like it.
FLASH_ATTENTION_SWITCH = "-fa (switch)"
# The same for builds whose --host takes the path of a Unix socket.
SOCKET_HOST = "--host (socket)"
# Their values are paths, names and words of the user.
VALUED = (
    "-m",
    "-md",
    "--mmproj",
    "--alias",
    "--slot-save-path",
    "--api-key-file",
    "serve",
    "--served-model-name",
)


class LlamaCpp(EngineFlavour):
    flavour = title = "llama.cpp"
    liveness_path = "/slots"
    metrics_path = "/metrics"
    drafting_path = "/slots"
    tells_own_drafting = True
    takes_projector = True
    rearranges = True
    serves: ClassVar[frozenset[str]] = EVERY
    takes: ClassVar[Mapping[str, Taken]] = {
        "dry_sequence_breakers": TEXTS,
        "min_keep": whole(0, 1000),
        "n_indent": whole(0, 1000),
        "parse_tool_calls": FLAG,
        "post_sampling_probs": FLAG,
        "return_tokens": FLAG,
        "t_max_predict_ms": whole(0, 86_400_000),
        "top_n_sigma": number(-1, 100),
    }
    # common/arg.cpp; forks have more.
    kv_cache_types: ClassVar[frozenset[str]] = frozenset(KV_CACHE_TYPES)

    def command(self, spec: ServerSpec) -> Command:
        require_probed(spec)
        device_flags = self.device_flags(spec)
        argv = [
            *("-m", spec.model_path, "--alias", spec.alias),
            *self.server_flags(spec),
            *kind_flags(spec),
            *device_flags.flags,
            *self.setting_flags(spec, offloads=bool(accelerators(spec.devices))),
            *self.draft_flags(spec),
            *projector_flags(spec),
            *allowed_args(spec.extra_args),
        ]
        require_flags(without_values(argv), spec.engine.flags, spec.engine.name)
        env = {**spec.engine.env, **device_flags.env}
        launch = replace(
            self.facts(spec),
            rpc_endpoints=tuple(device_flags.endpoints.values()),
            devices=device_flags.devices,
        )
        return Command(
            (spec.engine.path, *argv), env, tuple(device_flags.endpoints), launch=launch
        )

    def loading_args(self, path: str) -> tuple[str, ...]:
        return ("-m", path, "--host", "127.0.0.1", "--port", "0", "-ngl", "0")

    def has_arch(self, said: str) -> bool | None:
        """One that knows the architecture misses the next key."""
        if "unknown model architecture" in said:
            return False
        if "key not found in model" in said:
            return True
        return None

    def adjusted(self, request: PlanRequest) -> PlanRequest:
        """A text for a vector or a score is computed in one piece, and refused where it is longer
        than the micro-batch: where nobody says, that is as long as a request may be."""
        member = request.members.get("model")
        given = request.settings
        is_left = not {"batch", "ubatch"} & set(given)
        if member is None or member.facts.kind not in WITHOUT_TEXT or not is_left:
            return request
        values = with_defaults(given)
        context = context_tokens(given, member.facts.n_ctx_train)
        longest = min(context // max(int(values["parallel"]), 1), LONGEST_PIECE)
        if longest <= int(values["ubatch"]):
            return request
        pieces = {"ubatch": longest, "batch": max(longest, int(values["batch"]))}
        return replace(request, settings={**given, **pieces})

    def worded(self, path: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """It takes a response for a chat whose words it knows, and does not read `text.format`
        (tools/server/server-chat.cpp); documents are texts to it, and no objects."""
        if path == RERANK:
            documents = [
                each.get("text") if isinstance(each, dict) else each
                for each in fields.get("documents", ())
            ]
            return {**fields, "documents": documents}
        text = fields.get("text")
        wanted = text.get("format") if isinstance(text, dict) else None
        if path != RESPONSES or not isinstance(wanted, dict):
            return fields
        if wanted.get("type") == "json_schema":
            wanted = {"type": "json_schema", "json_schema": wanted}
        return {**fields, "response_format": fields.get("response_format", wanted)}

    # --- the first answer -------------------------------------------------------------------------
    def greedy_question(self, prompt: str, n_tokens: int, alias: str) -> Question:
        body = {
            "prompt": prompt,
            "n_predict": n_tokens,
            "temperature": 0,
            "top_k": 1,
            "seed": 1,
            "cache_prompt": False,
            "return_tokens": True,
            "n_probs": 1,
            "ignore_eos": True,
        }
        return Question("/completion", body)

    def greedy_tokens(self, answer: Any) -> Tokens:
        ids = tuple(int(token) for token in answer["tokens"])
        named = {
            int(one["id"]): str(one["token"])
            for one in answer.get("completion_probabilities") or ()
        }
        return Tokens(ids, tuple(named.get(token, f"#{token}") for token in ids))

    def is_drafting(self, answer: Any) -> bool:
        """Each slot says it; one that does not is no proof."""
        said = [bool(slot["speculative"]) for slot in answer if "speculative" in slot]
        return any(said) or not said

    # --- what it says of itself -------------------------------------------------------------------

    def parse_version(self, text: str) -> str:
        """`version: 0.1.0-dev (build 1, commit 7e4c0a9)` → what stands after the colon."""
        found = re.search(r"^version:\s*(.+)$", text, re.M)
        if found:
            return found[1].strip()
        return ""

    def parse_flags(self, text: str) -> frozenset[str]:
        bare = re.search(r"^-fa, +--flash-attn(?: {2,}.*)?$", text, re.M)
        sockets = re.search(r"^ *--host\b[^-]*UNIX socket[^-]*\.sock", text, re.M)
        own = {FLASH_ATTENTION_SWITCH} if bare else set()
        return listed_flags(text) | own | ({SOCKET_HOST} if sockets else set())

    def parse_devices(self, text: str) -> tuple[ListedDevice, ...]:
        """Lines such as `  CUDA0: NVIDIA RTX (32000 MiB, 31000 MiB free)`."""
        pattern = r"^\s+(\w+): (.*?)(?: \((\d+) MiB, (\d+) MiB free\))?$"
        return tuple(
            ListedDevice(name, description.strip(), _mib(total), _mib(free))
            for name, description, total, free in re.findall(pattern, text, re.M)
        )

    # --- the parts of the command line ------------------------------------------------------------
    def server_flags(self, spec: ServerSpec) -> list[str]:
        """How it listens and what it tells; verbosity 4 is the lowest that prints memory per
        device."""
        flags = [*listening(spec), "-lv", "4", "--metrics"]
        has = spec.engine.flags
        # These narrow what the server offers; a build without the flag does not offer it either.
        flags += (
            ["--no-ui"]
            if "--no-ui" in has
            else ["--no-webui"]
            if "--no-webui" in has
            else []
        )
        if "--cors-origins" in has:
            flags += ["--cors-origins", "localhost"]
        # The plan decides what goes where; the engine's own fitting would change it in silence.
        return flags + (["-fit", "off"] if "-fit" in has else [])

    def device_flags(self, spec: ServerSpec) -> DeviceFlags:
        own = accelerators(spec.devices)
        drafting = accelerators(spec.draft.devices if spec.draft else ())
        used = tuple(dict.fromkeys((*own, *drafting)))
        flags: list[str] = []
        env: dict[str, str] = {}
        check_apart(used)
        endpoints = rpc_endpoints_of(used)
        if endpoints:
            flags += ["--rpc", ",".join(endpoints.values())]
            # RDMA in the RPC back end is not needed on loopback and has had memory errors.
            env["GGML_RPC_NO_RDMA"] = "1"
        names = {device.name: device.name for device in used}
        # The engine numbers RPC devices in the order of their addresses.
        names |= {name: f"RPC{index}" for index, name in enumerate(endpoints)}
        if any(device.kind == "cuda" for device in used):
            # As the devices were listed; without it the driver puts the fastest card first.
            env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        if cards := [
            device for device in used if device.kind == "cuda" and device.gpu_uuid
        ]:
            # By UUID: an index changes with the driver's order. Only these cards are visible to the
            # process, so the engine numbers them from 0, and it takes no memory on the others.
            env["CUDA_VISIBLE_DEVICES"] = ",".join(card.gpu_uuid for card in cards)
            names |= {card.name: f"CUDA{index}" for index, card in enumerate(cards)}
        own_names = [names[device.name] for device in own]
        draft_names = [names[device.name] for device in drafting]
        flags += ["--device", ",".join(own_names) or "none"]
        if spec.split_mode:
            flags += ["-sm", spec.split_mode]
        if spec.draft and spec.draft.model_path:
            flags += ["-devd", ",".join(draft_names) or "none"]
        if spec.projector and spec.projector.device:
            # Else its encoder goes on the first accelerator of the machine, whatever --device says
            # (tools/mtmd/clip.cpp, clip_ctx).
            env["MTMD_BACKEND_DEVICE"] = names[spec.projector.device.name]
        return DeviceFlags(
            tuple(flags), env, endpoints, tuple(dict.fromkeys(own_names + draft_names))
        )

    def setting_flags(self, spec: ServerSpec, *, offloads: bool) -> list[str]:
        values = with_defaults(spec.settings)
        layers = values["gpu_layers"]
        every = layers in (AUTO, ALL)
        flags = [
            *("-c", str(spec.context_tokens)),
            *("-np", str(values["parallel"])),
            *("-ngl", "0" if not offloads else EVERY_LAYER if every else str(layers)),
            *self.flash_attention(spec, str(values["flash_attention"])),
            *(
                "-ctk",
                self.kv_type(str(values["kv_cache_k"])),
                "-ctv",
                self.kv_type(str(values["kv_cache_v"])),
            ),
            *("-b", str(values["batch"]), "-ub", str(values["ubatch"])),
        ]
        if values[SHARES] != AUTO and len(accelerators(spec.devices)) > 1:
            flags += ["-ts", str(values[SHARES])]
        if values["n_cpu_moe"] == ALL:
            flags += ["-cmoe"]
        elif values["n_cpu_moe"] not in (AUTO, 0):
            flags += ["-ncmoe", str(values["n_cpu_moe"])]
        flags += ["-kvu"] if values["kv_unified"] == "on" else []
        flags += self.swa_flags() if spec.swa_full else []
        if spec.slots_folder:
            flags += ["--slot-save-path", spec.slots_folder]
            # An idle slot is about to be saved or has just been restored: the engine must not put
            # it away.
            flags += (
                ["--no-cache-idle-slots"]
                if "--no-cache-idle-slots" in spec.engine.flags
                else []
            )
        for key, flag in (("threads", "-t"), ("cache_ram_mib", "-cram")):
            flags += [] if values[key] == AUTO else [flag, str(values[key])]
        return flags + self.load_flags(spec, str(values["load_mode"]))

    def flash_attention(self, spec: ServerSpec, value: str) -> list[str]:
        if FLASH_ATTENTION_SWITCH not in spec.engine.flags:
            return ["-fa", value]
        # Left to themselves these builds leave it off, which a quantised cache does not allow.
        if value == "off":
            return []
        return ["-fa"]

    def kv_type(self, value: str) -> str:
        """Raises OmniError (bad_setting) for a format this engine does not have."""
        if value not in self.kv_cache_types:
            text = f"{self.flavour} has no KV cache of the format {value}."
            raise OmniError(
                "bad_setting", text, f"It has {', '.join(sorted(self.kv_cache_types))}."
            )
        return value

    def swa_flags(self) -> list[str]:
        """For every layer to keep the whole context."""
        return ["--swa-full"]

    def load_flags(self, spec: ServerSpec, mode: str) -> list[str]:
        """Builds from before --load-mode have a switch for each part of it."""
        has = spec.engine.flags
        if mode == AUTO or "-lm" in has:
            if mode == AUTO:
                return []
            return ["-lm", mode]
        if mode == "dio":
            return [first_known(("-lm", "--direct-io"), has, spec.engine.name)]
        # Their default is to map the file.
        return {
            "none": ["--no-mmap"],
            "mmap": [],
            "mlock": ["--no-mmap", "--mlock"],
        }.get(mode, ["--mlock"])

    def draft_flags(self, spec: ServerSpec) -> list[str]:
        if spec.draft is None:
            return []
        values = with_defaults(spec.settings)
        has = spec.engine.flags
        flags = []
        # A draft model without a type is loaded and never used, except by builds from before there
        # were types: to those a draft model is type enough.
        if "--spec-type" in has or spec.draft.type != "draft-simple":
            flags += ["--spec-type", spec.draft.type]
        if spec.draft.model_path:
            if spec.draft.gpu_layers == ALL:
                layers = EVERY_LAYER
            else:
                layers = str(spec.draft.gpu_layers)
            flags += ["-md", spec.draft.model_path, "-ngld", layers]
        if spec.draft.type.startswith("draft-"):
            for key in ("max", "min"):
                flag = first_known(
                    (f"--spec-draft-n-{key}", f"--draft-{key}"), has, spec.engine.name
                )
                flags += [flag, str(values[f"draft_{key}"])]
        return flags


def projector_flags(spec: ServerSpec) -> list[str]:
    """The file with which the model sees or hears; on the host where it has no device."""
    if spec.projector is None:
        return []
    flags = ["--mmproj", spec.projector.path]
    offload = "--no-mmproj-offload"
    is_said = spec.projector.device or offload in spec.extra_args
    return flags if is_said or offload not in spec.engine.flags else [*flags, offload]


def listening(spec: ServerSpec) -> list[str]:
    """On a Unix socket, which its folder keeps from others; on a port, which anybody may call, it
    asks for a key."""
    if SOCKET_HOST in spec.engine.flags:
        return ["--host", SOCKET]
    key = ["--api-key-file", spec.api_key_file] if spec.api_key_file else []
    return ["--host", "127.0.0.1", "--port", PORT, *key]


def kind_flags(spec: ServerSpec) -> list[str]:
    """What turns the server from text to vectors or to scores. Raises OmniError (unknown_flag)."""
    if spec.kind == Kind.RERANKER:
        return [
            first_known(
                ("--reranking", "--rerank"), spec.engine.flags, spec.engine.name
            )
        ]
    if spec.kind != Kind.EMBEDDING:
        return []
    flags = [
        first_known(
            ("--embeddings", "--embedding"), spec.engine.flags, spec.engine.name
        )
    ]
    # A vector for each token is of no use to those who ask for a text's.
    if spec.pooling not in ("", "none"):
        return flags
    return [*flags, "--pooling", "mean"]


def require_probed(spec: ServerSpec) -> None:
    """Raises OmniError (engine_not_probed)."""
    if not spec.engine.flags:
        text = f"The engine {spec.engine.name} has not said yet which flags it has."
        raise OmniError(
            "engine_not_probed",
            text,
            "Probe the engine first; a scan does it.",
            retry=True,
        )


def without_values(argv: list[str]) -> list[str]:
    """The flags alone: only a path or a name could look like one."""
    return [
        word
        for before, word in zip(["", *argv], argv, strict=False)
        if before not in VALUED
    ]


def _mib(text: str) -> int | None:
    if text:
        return int(text) * MIB
    return None
