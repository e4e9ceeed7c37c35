"""Load a model: gateways call `load_tokenizer`, and scorers `load_engine`.

Importing torch and transformers takes seconds and 400 MB, so they are imported only where torch
computes.
"""

from importlib.util import find_spec
from pathlib import Path

from serve_app.engine import cpu
from serve_app.engine.cross_encoder import Identity, cross_encoder
from serve_app.engine.limits import EngineLimits
from serve_app.engine.openvino_exports import Export
from serve_app.engine.sources import ModelLoadError, check_torch, resolve
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from serve_app.ports import Engine
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)


def load_tokenizer(
    source: str,
    revision: str | None = None,
    pair_tokens_max: int | None = None,
    cache: Path | None = None,
) -> PairTokenizer:
    """See `serve_app.engine.export_cache` for ``cache``.

    Raises: ModelLoadError.
    """
    files = TokenizerFiles.read(resolve(source, revision), source, cache)
    return PairTokenizer(files, pair_tokens_max)


def load_engine(
    source: str,
    revision: str | None,
    precision: str,
    limits: EngineLimits,
    cache: Path | None = None,
) -> Engine:
    """Load the model on the best available device, without warm-up.

    ``precision`` is ``auto`` or one of `cpu.PRECISIONS`.

    Raises: ModelLoadError, also if torch is not installed.
    """
    check_torch(source)
    folder = resolve(source, revision)
    engine = _openvino_engine(source, folder, precision, limits, cache) if _on_cpu() else None
    if engine is None:
        from serve_app.engine.assembly import assemble  # noqa: PLC0415 - imports torch

        engine = assemble(source, folder, precision, limits)
    return engine


def _on_cpu() -> bool:
    """Return whether the CPU computes; torch is only imported where there is a driver for GPUs."""
    if not any(driver.exists() for driver in cpu.GPU_DRIVERS):
        return True
    from serve_app.engine.device import pick_device  # noqa: PLC0415 - imports torch

    return str(pick_device()) == "cpu"


def _openvino_engine(
    source: str, folder: Path, precision: str, limits: EngineLimits, cache: Path | None
) -> Engine | None:
    """Return ``None`` if OpenVINO cannot compute this model here.

    Raises: ModelLoadError.
    """
    number_format = cpu.cpu_precision(precision)
    if find_spec("openvino") is None:
        return None
    from serve_app.engine import openvino_model  # noqa: PLC0415 - an extra

    if not openvino_model.computes(number_format):
        return None
    wanted = Export(source, str(folder.absolute()), number_format, limits.pair_tokens_max)
    try:
        with wanted.files(cache) as files:
            model = openvino_model.OpenVinoModel(
                files, number_format, limits.threads or cpu.cpu_cores()
            )
    except ModelLoadError:
        raise
    except Exception as error:  # noqa: BLE001 - a model's code and OpenVINO may raise anything
        logger.warning(
            "openvino_not_used",
            extra={"model": source, "reason": f"{type(error).__name__}: {str(error)[:300]}"},
        )
        return None
    facts = model.facts
    description = f"{facts.description}, by OpenVINO"
    identity = Identity("cpu", number_format, description, facts.activation)
    return cross_encoder(facts, identity, limits, model, length_step=openvino_model.LENGTH_STEP)
