"""The values of a GGUF header in the type they have to have: the one way to read its keys.

What is read here can be computed with: whole numbers from 0 up to MAX_NUMBER, lists no longer than
models have layers, texts fit to be stored. Anything else is refused with the key's name.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from deployments.formats.gguf import GgufError, GgufHeader, LazyArray
from deployments.formats.gguf_window import printable
from deployments.formats.limits import MAX_LAYERS, MAX_NUMBER, MAX_TEXT


class HeaderValues:
    """Raises GgufError (gguf_invalid) for a value of another type or out of range."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.arch = header.arch

    def fail(self, key: str, value: Any, wanted: str) -> GgufError:
        text = f"{printable(key)} is {printable(repr(value))}, not {wanted}"
        return GgufError("gguf_invalid", self.header.paths[0], text)

    # --- any key ----------------------------------------------------------------------------------
    def number(self, key: str) -> int | None:
        """None where the key is missing."""
        value = self.header.get(key)
        if value is None:
            return None
        return self._whole(key, value)

    def text(self, key: str) -> str:
        """What it says, fit to be shown and stored; empty where it says nothing or no text."""
        value = self.header.get(key)
        if isinstance(value, str):
            return printable(value, MAX_TEXT)
        return ""

    def flag(self, key: str) -> bool | None:
        """None where the key is missing or no truth value."""
        value = self.header.get(key)
        if isinstance(value, bool):
            return value
        return None

    # --- keys of the architecture, without its name -----------------------------------------------
    def of_arch(self, suffix: str) -> int | None:
        """One number for the whole model; None without the key."""
        return self.number(f"{self.arch}.{suffix}")

    def widest(self, suffix: str) -> int | None:
        """The number, or the largest one where every layer has its own; None without the key."""
        return max(self.per_layer(suffix, 1), default=None)

    def count(self, suffix: str) -> int:
        """As widest; 0 without the key."""
        return self.widest(suffix) or 0

    def per_layer(self, suffix: str, n_layer: int) -> tuple[int, ...]:
        """One number for each layer, whether the header has one for all or a list; empty without
        the key."""
        value = self.loaded(suffix)
        if value is None:
            return ()
        key = f"{self.arch}.{suffix}"
        if isinstance(value, list):
            return tuple(self._whole(key, one) for one in self._short(key, value))
        return (self._whole(key, value),) * n_layer

    def flags(self, suffix: str) -> list[bool] | int | None:
        """A list of truth values, or the one number that stands in its place."""
        value = self.loaded(suffix)
        if value is None:
            return None
        key = f"{self.arch}.{suffix}"
        if isinstance(value, list):
            return [bool(self._whole(key, one)) for one in self._short(key, value)]
        return self._whole(key, value)

    def loaded(self, suffix: str) -> Any:
        value = self.header.arch_get(suffix)
        if isinstance(value, LazyArray):
            return value.load()
        return value

    # --- how many layers --------------------------------------------------------------------------
    @cached_property
    def n_layer(self) -> int | None:
        """The layers that the header speaks of, those for drafting included."""
        layers = self.number(f"{self.arch}.block_count")
        if layers is not None and layers > MAX_LAYERS:
            raise self.fail(f"{self.arch}.block_count", layers, f"at most {MAX_LAYERS}")
        return layers

    @cached_property
    def n_nextn(self) -> int:
        """Of the layers, the last ones that only predict further tokens ahead."""
        key = f"{self.arch}.nextn_predict_layers"
        found = self.number(key) or 0
        if found > (self.n_layer or 0):
            raise self.fail(
                key, found, f"at most the {self.n_layer or 0} layers that there are"
            )
        return found

    # --- checks -----------------------------------------------------------------------------------
    def _whole(self, key: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            number = int(value)
        else:
            number = value
        if not isinstance(number, int) or not 0 <= number <= MAX_NUMBER:
            raise self.fail(key, value, f"a whole number up to {MAX_NUMBER}")
        return int(number)

    def _short(self, key: str, values: list[Any]) -> list[Any]:
        if len(values) > MAX_LAYERS:
            raise self.fail(
                key, f"a list of {len(values)}", f"at most {MAX_LAYERS} numbers"
            )
        return values
