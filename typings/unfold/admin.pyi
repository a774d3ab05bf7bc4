# What Omni uses of it; the package itself carries no types.
from typing import Any

from django.contrib import admin

class ModelAdmin(admin.ModelAdmin[Any]): ...
class TabularInline(admin.TabularInline[Any, Any]): ...
