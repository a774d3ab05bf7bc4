import sys
from types import ModuleType
from typing import cast

# httpx tries to import its command line program, and does without where that fails. With it come
# rich and click: 4 MB in each process, for a program that nobody starts here.
cast("dict[str, ModuleType | None]", sys.modules)["httpx._main"] = None
