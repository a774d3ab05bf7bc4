"""Data sheets of cards, for what a driver does not tell: bandwidth, cores, power, link, formats.

NVIDIA's since Ampere, AMD's and Intel's that llama.cpp runs by Vulkan. The figures stand in
cards.csv, a card a line; where they are from stands here, by family. Clocks, and what the makers
leave out, are as in TechPowerUp's GPU database. Bits of the bus and data rate of a pin stand in the
table to check the bandwidth by.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from omni.errors import OmniError
from omni.units import GIB

_TABLE = Path(__file__).with_name("cards.csv")
_AMPERE = ("tf32", "bf16", "fp16", "int8", "int4")
_ADA = (*_AMPERE, "fp8")
_BLACKWELL = ("tf32", "bf16", "fp16", "int8", "fp8", "fp6", "fp4")
_RDNA_3 = ("bf16", "fp16", "int8", "int4")


@dataclass(frozen=True)
class Family:
    """What the cards of one architecture have in common.

    `formats` are those that its matrix units multiply; `usable_share` of its memory is what the
    engine's back end lists.
    """

    source: str
    formats: tuple[str, ...] = ()
    # CUDA's, of NVIDIA's cards.
    capability: str = ""
    # The kind of device by which llama.cpp runs it best.
    backend: str = "cuda"
    # Single precision, per core and clock: a multiplication and an addition, where two of them are
    # issued at once twice as many.
    operations: int = 2
    # The driver keeps the rest: of the 32,768 MiB of an RTX 5090 llama.cpp lists 32,106
    # (ggml-org/llama.cpp issue 17536), of the 98,304 of an RTX PRO 6000 97,247, of the 81,920 of an
    # A100 81,151. The least of those.
    usable_share: float = 0.98


def _nvidia(source: str, capability: str, formats: tuple[str, ...]) -> Family:
    return Family(f"NVIDIA, {source}", formats, capability)


def _amd(source: str, formats: tuple[str, ...], operations: int = 4) -> Family:
    # An RX 7900 XTX lists 24,560 of 24,576 MiB.
    return Family(f"AMD, {source}", formats, "", "vulkan", operations, 0.999)


def _intel(source: str, formats: tuple[str, ...]) -> Family:
    return Family(f"Intel, {source}", formats, backend="vulkan")


FAMILIES: Mapping[str, Family] = {
    "geforce_50": _nvidia(
        "GeForce RTX 50 series (nvidia.com/geforce/graphics-cards/50-series)",
        "12.0",
        _BLACKWELL,
    ),
    "geforce_40": _nvidia("Ada GPU architecture white paper", "8.9", _ADA),
    "geforce_30": _nvidia("Ampere GA102 architecture white paper", "8.6", _AMPERE),
    "rtx_pro": _nvidia("data sheets of RTX PRO Blackwell", "12.0", _BLACKWELL),
    "rtx_ada": _nvidia("data sheets of RTX Ada Generation", "8.9", _ADA),
    "rtx_a": _nvidia("data sheets of the RTX A series", "8.6", _AMPERE),
    "blackwell_dc": _nvidia("data sheet of DGX B200, per GPU", "10.0", _BLACKWELL),
    "hopper": _nvidia("data sheets of GH200, H200 and H100", "9.0", _ADA),
    "ampere_a100": _nvidia("data sheets of A100 and A30", "8.0", _AMPERE),
    "ampere_dc": _nvidia("data sheets of A40, A16, A10 and A2", "8.6", _AMPERE),
    "ada_dc": _nvidia("data sheets of L40S, L40, L20 and L4", "8.9", _ADA),
    "gb10": _nvidia("DGX Spark hardware overview", "12.1", _BLACKWELL),
    "rdna4": _amd(
        "Radeon RX 9000 and AI PRO R9000 (amd.com/products/graphics)",
        (*_RDNA_3, "fp8"),
    ),
    "rdna3": _amd("Radeon RX 7000 and PRO W7000 (amd.com/products/graphics)", _RDNA_3),
    "strix_halo": _amd(
        "Ryzen AI Max+ 395 (amd.com/products/processors)",
        _RDNA_3,
    ),
    "rdna2": _amd("Radeon RX 6000 (amd.com/products/graphics)", (), operations=2),
    "xe_hpg": _intel("ARK, Arc A series", ("bf16", "fp16", "int8", "int4")),
    "xe2": _intel("ARK, Arc B series", ("tf32", "bf16", "fp16", "int8", "int4")),
}


@dataclass(frozen=True)
class DataSheet:
    """One card; None is what is not published, or does not apply.

    `memory_gb` tells variants of one name apart; `boost_mhz` is the clock its arithmetic is given
    at; the link is the best that it can use.
    """

    name: str
    memory_gb: int
    bandwidth_gbps: float
    memory_kind: str
    cores: int
    boost_mhz: int
    watts: int | None
    link_generation: int | None
    link_width: int | None
    family: Family
    # Other names that it is known by.
    also: tuple[str, ...] = ()

    @property
    def tflops(self) -> float:
        """Single precision, 10¹² operations a second."""
        return round(self.cores * self.family.operations * self.boost_mhz / 1e6, 1)

    @property
    def is_unified(self) -> bool:
        """It has no memory but the host's."""
        return self.memory_kind.startswith("LPDDR")

    def check_link(self, generation: int | None, width: int | None) -> None:
        """A slot may offer more, the card uses none of it. Raises OmniError (link_beyond_card)."""
        best = (self.link_generation, self.link_width)
        if any(
            said and most and said > most
            for said, most in zip((generation, width), best, strict=True)
        ):
            said, most = _link_text(generation, width), _link_text(*best)
            raise OmniError(
                "link_beyond_card",
                f"A link of {said} is more than the {self.name} can use: {most} at most.",
                f"Write {most} or less, or leave it out: then it is the card's best.",
            )

    @property
    def usable_bytes(self) -> int:
        """What the engine's back end lists of it."""
        return int(self.memory_gb * GIB * self.family.usable_share)


def _link_text(generation: int | None, width: int | None) -> str:
    """gen4 x16"""
    parts = [f"gen{generation}" if generation else "", f"x{width}" if width else ""]
    return " ".join(part for part in parts if part)


def _read(table: Path) -> Iterable[DataSheet]:
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield DataSheet(
                name=row["name"],
                memory_gb=int(row["memory_gb"]),
                bandwidth_gbps=float(row["bandwidth_gbps"]),
                memory_kind=row["memory_kind"],
                cores=int(row["cores"]),
                boost_mhz=int(row["boost_mhz"]),
                watts=_whole(row["watts"]),
                link_generation=_whole(row["link_generation"]),
                link_width=_whole(row["link_width"]),
                family=FAMILIES[row["family"]],
                also=tuple(row["also"].split("|")) if row["also"] else (),
            )


def _whole(text: str) -> int | None:
    if text:
        return int(text)
    return None


_MARKS = re.compile(r"\((?:r|tm|c)\)")
_IN_BRACKETS = re.compile(r"\(([^)]*)\)")
_MAKERS = re.compile(r"\b(?:nvidia|amd|intel)\b")


def _key(name: str) -> str:
    """Names without maker, punctuation and what stands in brackets: drivers and engines differ in
    those."""
    plain = _IN_BRACKETS.sub(" ", _MARKS.sub(" ", name.lower()))
    plain = re.sub(r"[^a-z0-9]+", " ", _MAKERS.sub(" ", plain))
    return " ".join(plain.split()).removesuffix(" graphics")


def _keys(name: str) -> Iterable[str]:
    """Mesa's names have the driver and the chip in brackets: "AMD Radeon Graphics (RADV
    GFX1151)"."""
    yield _key(name)
    for inner in _IN_BRACKETS.findall(_MARKS.sub(" ", name.lower())):
        yield _key(inner)


CARDS: tuple[DataSheet, ...] = tuple(_read(_TABLE))


def _by_key() -> Mapping[str, list[DataSheet]]:
    found: dict[str, list[DataSheet]] = {}
    for card in CARDS:
        for name in (card.name, *card.also):
            found.setdefault(_key(name), []).append(card)
    return found


_BY_KEY = _by_key()


def data_sheet(name: str, memory_bytes: int | None = None) -> DataSheet | None:
    """The card of this name, of several the one whose memory is nearest; None for one that is not
    known.

    Only whole names count: a card for laptops is not the one for desks.
    """
    alike = next((_BY_KEY[key] for key in _keys(name) if key in _BY_KEY), [])
    if not alike or memory_bytes is None:
        if alike:
            return alike[-1]
        return None
    return min(alike, key=lambda card: abs(card.memory_gb - memory_bytes / GIB))


# --- as people write them -------------------------------------------------------------------------
_MEMORY = re.compile(r"\b(\d+)\s*g(?:i?b)?\b")
# Words that tell no two cards apart.
_FILLING = frozenset(
    (
        "geforce",
        "rtx",
        "radeon",
        "rx",
        "arc",
        "gpu",
        "generation",
        "workstation",
        "edition",
        "graphics",
    )
)
_NEAR = 6


def card_named(text: str) -> DataSheet:
    """The card somebody means by "5090", "RTX PRO 6000 Blackwell" or "RTX 3060 12 GB".

    The name with the fewest words beside those is taken where all others are variants of it that
    say more. Raises OmniError (unknown_card, ambiguous_card) that names the near ones.
    """
    exact = _BY_KEY.get(_key(text), [])
    if len(exact) == 1:
        return exact[0]
    words, memory_gb = _words(text)
    close = [
        card
        for card in CARDS
        if words and words <= _card_words(card) and memory_gb in (None, card.memory_gb)
    ]
    if not close:
        known = ", ".join(_near(text))
        raise OmniError(
            "unknown_card",
            f"No data sheet of a card {text!r} is known.",
            f"Near ones are: {known}.",
        )
    least = min((_card_words(card) for card in close), key=len)
    plain = [card for card in close if _card_words(card) == least]
    are_variants = all(least <= _card_words(card) for card in close)
    if len(plain) > 1 or not are_variants:
        known = ", ".join(_with_memory(card) for card in close)
        raise OmniError(
            "ambiguous_card",
            f"The card {text!r} may be one of several.",
            f"Say which: {known}.",
        )
    return plain[0]


def _words(text: str) -> tuple[frozenset[str], int | None]:
    """What tells the card apart, and the memory that is said, in GB."""
    key = _key(text)
    said = _MEMORY.search(key)
    words = frozenset(_MEMORY.sub(" ", key).split()) - _FILLING
    return words, int(said[1]) if said else None


def _card_words(card: DataSheet) -> frozenset[str]:
    return _words(card.name)[0]


def clear_name(card: DataSheet) -> str:
    """The name by which card_named finds this card and no other."""
    alike = [each for each in CARDS if each.name == card.name]
    if len(alike) == 1:
        return card.name
    return _with_memory(card)


def _with_memory(card: DataSheet) -> str:
    if f"{card.memory_gb}GB" in card.name:
        return card.name
    return f"{card.name} {card.memory_gb} GB"


def _near(text: str) -> list[str]:
    """Names of cards that look like it, the likest first."""
    words = " ".join(sorted(_words(text)[0]))

    def likeness(name: str) -> float:
        known = " ".join(sorted(_words(name)[0]))
        return difflib.SequenceMatcher(None, words, known).ratio()

    names = dict.fromkeys(card.name for card in CARDS)
    return sorted(names, key=likeness, reverse=True)[:_NEAR]
