"""Data sheets of NVIDIA's cards since Ampere, for what a driver does not tell: memory bandwidth and
cores.

Sources by family: NVIDIA's product pages and data sheets, named at each table; clocks, and what
those leave out, as in TechPowerUp's GPU database, with which every bandwidth (bits of the bus ×
data rate) was compared.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from omni.errors import OmniError
from omni.units import GIB

# The driver keeps a part of every card for itself: of a 5090's 32,768 MiB llama.cpp lists 32,106
# (ggml-org/llama.cpp issue 17536).
USABLE_SHARE = 0.98


@dataclass(frozen=True)
class DataSheet:
    """One card.

    `memory_gb` tells variants of one name apart; `boost_mhz` is the clock its arithmetic is given
    at.
    """

    name: str
    memory_gb: int
    bandwidth_gbps: float
    cores: int
    boost_mhz: int
    source: str

    @property
    def backend(self) -> str:
        """The kind of device by which llama.cpp runs it."""
        return "cuda"

    @property
    def usable_bytes(self) -> int:
        """What the engine's back end reports of it."""
        return int(self.memory_gb * GIB * USABLE_SHARE)

    @property
    def link_generation(self) -> int | None:
        """PCI Express generation it can use; None where the sheet says nothing."""
        return None

    @property
    def link_width(self) -> int | None:
        """Lanes it can use."""
        return None

    @property
    def tflops(self) -> float:
        """Single precision: a multiplication and an addition per core and clock, 10¹² a second."""
        return round(self.cores * 2 * self.boost_mhz / 1e6, 1)


# Rows: name as NVML gives it without "NVIDIA", GB, GB/s, cores, boost clock in MHz.
_Rows = tuple[tuple[str, int, float, int, int], ...]

_GEFORCE_50: _Rows = (
    ("GeForce RTX 5090", 32, 1792, 21760, 2407),
    ("GeForce RTX 5090 D", 32, 1792, 21760, 2407),
    ("GeForce RTX 5090 D v2", 24, 1344, 21760, 2407),
    ("GeForce RTX 5080", 16, 960, 10752, 2617),
    ("GeForce RTX 5070 Ti", 16, 896, 8960, 2452),
    ("GeForce RTX 5070", 12, 672, 6144, 2512),
    ("GeForce RTX 5060 Ti", 16, 448, 4608, 2572),
    ("GeForce RTX 5060", 8, 448, 3840, 2497),
    ("GeForce RTX 5050", 8, 320, 2560, 2572),
)
_GEFORCE_40: _Rows = (
    ("GeForce RTX 4090", 24, 1008, 16384, 2520),
    ("GeForce RTX 4090 D", 24, 1008, 14592, 2520),
    ("GeForce RTX 4080 SUPER", 16, 736, 10240, 2550),
    ("GeForce RTX 4080", 16, 717, 9728, 2505),
    ("GeForce RTX 4070 Ti SUPER", 16, 672, 8448, 2610),
    ("GeForce RTX 4070 Ti", 12, 504, 7680, 2610),
    ("GeForce RTX 4070 SUPER", 12, 504, 7168, 2475),
    # A later one with GDDR6 has 480 GB/s; its name is the same.
    ("GeForce RTX 4070", 12, 504, 5888, 2475),
    ("GeForce RTX 4060 Ti", 16, 288, 4352, 2535),
    ("GeForce RTX 4060", 8, 272, 3072, 2460),
)
_GEFORCE_30: _Rows = (
    ("GeForce RTX 3090 Ti", 24, 1008, 10752, 1860),
    ("GeForce RTX 3090", 24, 936, 10496, 1695),
    ("GeForce RTX 3080 Ti", 12, 912, 10240, 1665),
    ("GeForce RTX 3080", 12, 912, 8960, 1710),
    ("GeForce RTX 3080", 10, 760, 8704, 1710),
    ("GeForce RTX 3070 Ti", 8, 608, 6144, 1770),
    ("GeForce RTX 3070", 8, 448, 5888, 1725),
    # A later one with GDDR6X has 608 GB/s; its name is the same.
    ("GeForce RTX 3060 Ti", 8, 448, 4864, 1665),
    ("GeForce RTX 3060", 12, 360, 3584, 1777),
    ("GeForce RTX 3060", 8, 240, 3584, 1777),
    ("GeForce RTX 3050", 8, 224, 2560, 1777),
    ("GeForce RTX 3050", 6, 168, 2304, 1470),
)
_RTX_PRO: _Rows = (
    ("RTX PRO 6000 Blackwell Workstation Edition", 96, 1792, 24064, 2617),
    # 110 TFLOPS at its 300 W.
    ("RTX PRO 6000 Blackwell Max-Q Workstation Edition", 96, 1792, 24064, 2280),
    ("RTX PRO 6000 Blackwell Server Edition", 96, 1597, 24064, 2617),
    ("RTX PRO 5000 Blackwell", 72, 1344, 14080, 2377),
    ("RTX PRO 5000 Blackwell", 48, 1344, 14080, 2377),
    ("RTX PRO 4500 Blackwell", 32, 896, 10496, 2407),
    ("RTX PRO 4000 Blackwell", 24, 672, 8960, 2055),
    ("RTX PRO 4000 Blackwell SFF Edition", 24, 432, 8960, 1432),
    ("RTX PRO 2000 Blackwell", 16, 288, 4352, 1957),
)
_RTX_ADA: _Rows = (
    ("RTX 6000 Ada Generation", 48, 960, 18176, 2505),
    ("RTX 5880 Ada Generation", 48, 960, 14080, 2460),
    ("RTX 5000 Ada Generation", 32, 576, 12800, 2550),
    ("RTX 4500 Ada Generation", 24, 432, 7680, 2580),
    ("RTX 4000 Ada Generation", 20, 360, 6144, 2175),
    ("RTX 4000 SFF Ada Generation", 20, 280, 6144, 1560),
    ("RTX 2000 Ada Generation", 16, 224, 2816, 2130),
)
_RTX_A: _Rows = (
    ("RTX A6000", 48, 768, 10752, 1800),
    ("RTX A5500", 24, 768, 10240, 1665),
    ("RTX A5000", 24, 768, 8192, 1695),
    ("RTX A4500", 20, 640, 7168, 1650),
    ("RTX A4000", 16, 448, 6144, 1560),
    ("RTX A2000 12GB", 12, 288, 3328, 1200),
    ("RTX A2000", 6, 288, 3328, 1200),
)
_DATA_CENTRE: _Rows = (
    ("B200", 180, 8000, 18944, 1965),
    ("GH200 480GB", 96, 4000, 16896, 1980),
    ("H200", 141, 4800, 16896, 1980),
    ("H200 NVL", 141, 4800, 16896, 1785),
    ("H100 80GB HBM3", 80, 3350, 16896, 1980),
    ("H100 NVL", 94, 3900, 16896, 1785),
    ("H100 PCIe", 80, 2000, 14592, 1755),
    ("A100-SXM4-80GB", 80, 2039, 6912, 1410),
    ("A100 80GB PCIe", 80, 1935, 6912, 1410),
    ("A100-SXM4-40GB", 40, 1555, 6912, 1410),
    ("A100-PCIE-40GB", 40, 1555, 6912, 1410),
    ("A40", 48, 696, 10752, 1740),
    ("A30", 24, 933, 3584, 1440),
    ("A10", 24, 600, 9216, 1695),
    ("A10G", 24, 600, 9216, 1710),
    ("A16", 16, 200, 1280, 1755),
    ("A2", 16, 200, 1280, 1770),
    ("L40S", 48, 864, 18176, 2520),
    ("L40", 48, 864, 18176, 2490),
    ("L20", 48, 864, 11776, 2520),
    ("L4", 24, 300, 7424, 2040),
)
_GRACE_BLACKWELL: _Rows = (("GB10", 128, 273, 6144, 2418),)

_SOURCES: tuple[tuple[str, _Rows], ...] = (
    (
        (
            "NVIDIA, GeForce RTX 50 series specifications"
            " (nvidia.com/geforce/graphics-cards/50-series)"
        ),
        _GEFORCE_50,
    ),
    ("NVIDIA Ada GPU architecture white paper; TechPowerUp", _GEFORCE_40),
    ("NVIDIA Ampere GA102 GPU architecture white paper; TechPowerUp", _GEFORCE_30),
    ("NVIDIA, data sheets of the RTX PRO Blackwell series", _RTX_PRO),
    ("NVIDIA, data sheets of the RTX Ada Generation workstation cards", _RTX_ADA),
    ("NVIDIA, data sheets of the RTX A series", _RTX_A),
    (
        "NVIDIA, data sheets of its data-centre GPUs (DGX B200: 64 TB/s for 8)",
        _DATA_CENTRE,
    ),
    ("NVIDIA, DGX Spark hardware overview", _GRACE_BLACKWELL),
)


def _key(name: str) -> str:
    """Names without maker and punctuation: drivers and engines differ in those."""
    return " ".join(
        re.sub(r"[^a-z0-9]+", " ", re.sub(r"\bnvidia\b", "", name.lower())).split()
    )


CARDS: tuple[DataSheet, ...] = tuple(
    DataSheet(*row, source) for source, rows in _SOURCES for row in rows
)
_BY_KEY: Mapping[str, list[DataSheet]] = {
    key: [card for card in CARDS if _key(card.name) == key]
    for key in dict.fromkeys(_key(card.name) for card in CARDS)
}


def data_sheet(name: str, memory_bytes: int | None = None) -> DataSheet | None:
    """The card of this name, of several the one whose memory is nearest; None for one that is not
    known.

    Only whole names count: a card for laptops is not the one for desks.
    """
    alike = _BY_KEY.get(_key(name), [])
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


def _with_memory(card: DataSheet) -> str:
    if f"{card.memory_gb}GB" in card.name:
        return card.name
    return f"{card.name} {card.memory_gb} GB"


def _near(text: str) -> list[str]:
    """Names of cards that look like it, the likest first."""
    by_key = {_key(card.name): card.name for card in CARDS}
    words = " ".join(sorted(_words(text)[0]))
    ranked = sorted(
        by_key,
        key=lambda key: difflib.SequenceMatcher(
            None, words, " ".join(sorted(_words(key)[0]))
        ).ratio(),
        reverse=True,
    )
    return [by_key[key] for key in ranked[:_NEAR]]
