"""Template filters over omni.units, and the icons."""

from __future__ import annotations

from functools import cache
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import mark_safe

from omni import units
from omni.icons import ICONS
from omni.program_address import program_address

register = template.Library()

register.filter("bytes", units.bytes_text)
register.filter("count", units.count_text)
register.filter("grouped", units.grouped_text)
register.filter("tps", units.tps_text)
register.filter("short", units.short_text)
register.filter("ms", units.ms_text)
register.filter("times", units.times_text)
register.filter("percent", units.percent_text)
register.filter("watts", units.watts_text)
register.filter("celsius", units.celsius_text)
register.filter("gbps", units.gbps_text)


@register.simple_tag(takes_context=True)
def gateway_address(context: Any) -> str:
    """Where programs ask, as whoever looks at the page reached the panel."""
    return program_address(context["request"])


COMMAND = """<div class="command">
  <pre id="{0}" role="region" tabindex="0" aria-label="{1}">{2}</pre>
  <button type="button" class="btn btn-small btn-icon" data-copy="#{0}" aria-label="{3}">
    {4}
  </button>
</div>"""


@register.simple_block_tag
def command(content: str, element: str, label: str, copy: str) -> str:
    """Text to be copied as it stands, with the button that does; `copy` is what that one says."""
    text = mark_safe(content.strip())
    return format_html(COMMAND, element, label, text, copy, icon("copy"))


@register.filter
def get(mapping: Any, key: Any) -> Any:
    """A value of a mapping whose key is only known in the template."""
    if mapping:
        return mapping.get(key)
    return None


@register.filter
def kind(severity: str) -> str:
    """The kind of notice, which has a colour, for a severity or the level of a message."""
    return {"error": "bad", "caution": "warn", "success": "ok"}.get(severity, severity)


@register.simple_tag
@cache
def icon(name: str, label: str = "") -> str:
    """An inline SVG; decorative unless it has a label.

    Raises KeyError for a name that does not exist.
    """
    if label:
        aria = format_html('role="img" aria-label="{}"', label)
    else:
        aria = mark_safe('aria-hidden="true"')
    return format_html(
        '<svg class="icon" viewBox="0 0 24 24" {}>{}</svg>',
        aria,
        mark_safe(ICONS[name]),
    )
