"""The pages of the navigation: their groups, who is shown which, and which is lit up."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from omni.context import ENTRIES, SECTION_OF
from omni.icons import ICONS

pytestmark = pytest.mark.django_db
LIT_UP = re.compile(r'href="([^"]+)"\s+aria-current="page"')


def test_each_entry_is_there_once_with_an_icon_and_a_phone_has_room_for_its_bar() -> (
    None
):
    titles = [entry.title for entry in ENTRIES]
    assert len(set(titles)) == len(titles)
    assert {entry.icon for entry in ENTRIES} <= set(ICONS)
    assert sum(entry.in_bar for entry in ENTRIES) <= 4


def test_pages_below_another_light_up_an_entry_that_there_is() -> None:
    assert set(SECTION_OF.values()) <= {entry.view for entry in ENTRIES}


@pytest.mark.parametrize(
    ("path", "entry"),
    (
        ("/keys/", "/keys/"),
        ("/keys/new/", "/keys/"),
        ("/usage/", "/activity/"),
        ("/connect/", "/connect/"),
    ),
)
def test_the_page_that_is_open_is_marked(admin: Client, path: str, entry: str) -> None:
    page = admin.get(path).content.decode()
    assert set(LIT_UP.findall(page)) == {entry}


def test_the_administration_is_shown_to_who_may_enter_it(
    admin: Client, viewer: Client
) -> None:
    address = f'href="{reverse("admin:index")}"'
    assert address in admin.get("/keys/").content.decode()
    assert address not in viewer.get("/keys/").content.decode()
