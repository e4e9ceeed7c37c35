"""Read the operators' model cards."""

from pathlib import Path

from serve_app.engine.sources import ModelLoadError
from serve_app.protocols.model_facts import parse_card
from serve_app.settings.models import ModelSettings


def read_card(model: ModelSettings) -> dict[str, object]:
    """Return the facts in the model card, by name; empty without one.

    Raises: ModelLoadError.
    """
    if model.card is None:
        return {}
    try:
        return parse_card(Path(model.card).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"model {model.id}: its model card {model.card}: {error}") from error
