from django.urls import path

from chat import (
    attachment_views,
    benchmark_views,
    lane_views,
    reading_views,
    views,
    vote_views,
)

app_name = "chat"
urlpatterns = [
    path("", views.list_page, name="list"),
    path("new/", views.new, name="new"),
    path("standings/", vote_views.standings_page, name="standings"),
    path("<int:pk>/", views.conversation_page, name="conversation"),
    path("<int:pk>/thread/", views.thread, name="thread"),
    path("<int:pk>/lanes/", lane_views.heads, name="lanes"),
    path("<int:pk>/lanes/add/", lane_views.add, name="lane-add"),
    path("<int:pk>/lanes/<int:lane>/change/", lane_views.change, name="lane-change"),
    path("<int:pk>/lanes/<int:lane>/remove/", lane_views.remove, name="lane-remove"),
    path("<int:pk>/in-turn/", lane_views.in_turn, name="in-turn"),
    path("<int:pk>/blind/", vote_views.blind, name="blind"),
    path(
        "<int:pk>/differences/<int:question>/",
        reading_views.differences_page,
        name="differences",
    ),
    path("<int:pk>/export/<slug:kind>/", reading_views.export, name="export"),
    path("<int:pk>/images/", attachment_views.add, name="attachment-add"),
    path(
        "<int:pk>/images/<int:attachment>/", attachment_views.shown, name="attachment"
    ),
    path(
        "<int:pk>/images/<int:attachment>/remove/",
        attachment_views.remove,
        name="attachment-remove",
    ),
    path("<int:pk>/benchmark/", benchmark_views.benchmark, name="benchmark"),
    path("<int:pk>/settings/", views.configure, name="settings"),
    path("<int:pk>/rename/", views.rename, name="rename"),
    path("<int:pk>/delete/", views.delete, name="delete"),
]
