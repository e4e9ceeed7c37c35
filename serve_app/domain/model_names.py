"""The names that clients may use for the served models."""

from collections.abc import Iterable, Mapping

from serve_app.domain.model import EMBEDDED
from serve_app.domain.units import ModelId


class ModelNames:
    """Ids and aliases, which match in any letter case."""

    def __init__(self, aliases: Mapping[ModelId, Iterable[str]]) -> None:
        """``aliases``: other names by model, the default model first."""
        self._default = next(iter(aliases))
        self._ids = {EMBEDDED: self._default} | {
            name.casefold(): model for model, others in aliases.items() for name in (model, *others)
        }

    def resolve(self, name: str | None) -> ModelId:
        """Return the id, as configured, of the model that ``name`` refers to.

        ``None`` means the default model, and so does ``embedded`` unless it is an id. An unknown
        name is returned unchanged.
        """
        if name is None:
            return self._default
        return self._ids.get(name.casefold(), ModelId(name))
