"""TTNN's namespaces with something else in some places."""

from types import ModuleType
from typing import Any


class Over(ModuleType):
    """A namespace over another one, of which each attribute is looked up once."""

    def __init__(self, under: Any) -> None:
        super().__init__("ttnn")
        self._under = under

    def __getattr__(self, name: str) -> Any:
        found = self.in_place_of(getattr(self._under, name))
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        return dir(self._under)

    def in_place_of(self, found: Any) -> Any:
        """What stands here for an attribute of the other one: itself."""
        return found
