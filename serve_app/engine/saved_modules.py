"""Files of sentence-transformers in a cross-encoder's folder, as its `CrossEncoder` reads them.

    modules.json                        the modules in order, and the folder of each
    config_sentence_transformers.json   the kind of model, its activation and prompts
    sentence_bert_config.json           what the first module, the transformer, returns
    N_Dense/config.json                 the options of a later module
    N_Dense/model.safetensors           its weights, if it has any

The transformer's own files are in the root. Older models have only those, and their config.json may
name the activation.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.engine.sources import ModelLoadError

Json = dict[str, Any]

HEADS = frozenset({"Pooling", "Dense", "LayerNorm", "Normalize", "Dropout"})
"""Classes of modules that can follow the transformer."""

STATES, LOGITS = "feature-extraction", "sequence-classification"
"""The transformer's tasks: it returns a state for each token, or the logit of the pair."""

TRANSFORMER_OPTIONS = ("processing_kwargs", "query_expansion", "do_lower_case")
"""Options of the transformer that change its input."""

IDENTITY, SIGMOID = "identity", "sigmoid"


@dataclass(frozen=True, slots=True)
class SavedModule:
    """A module after the transformer."""

    kind: str
    """One of `HEADS`."""

    folder: Path
    options: Json


def saved_head(source: str, folder: Path) -> tuple[SavedModule, ...]:
    """Return the modules after the transformer; none if the transformer has its own head.

    Raises: ModelLoadError when `CrossEncoder` computes something that the engine does not.
    """
    try:
        return _saved_head(folder)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        what = str(error) if type(error) is _Unsupported else f"are damaged ({error!r})"
        raise ModelLoadError(
            f"model {source}: its files of sentence-transformers {what}; choose a cross-encoder "
            "with one of the layouts in the documentation of models"
        ) from error


def saved_activation(folder: Path) -> str:
    """Return the activation that `CrossEncoder.predict` applies to the logit.

    It is the class of torch in lower case, such as ``sigmoid``, the default, or ``identity``.
    """
    config = _read(folder / "config.json")
    paths = (
        _cross_encoder(folder).get("activation_fn"),
        (config.get("sentence_transformers") or {}).get("activation_fn"),
        config.get("sbert_ce_default_activation_function"),
    )
    # Like sentence-transformers, ignore classes that are not torch's.
    names = (_torch_class(path) for path in paths if path)
    return next((name.lower() for name in names if name), SIGMOID)


def torch_class(path: str) -> str:
    """Return the name of the class of torch at the dotted ``path``. Raises: ValueError."""
    name = _torch_class(path)
    if name is None:
        raise _Unsupported(f"need {path}, which is not a class of torch")
    return name


def _torch_class(path: str) -> str | None:
    return path.rpartition(".")[2] if path.startswith("torch.nn.") else None


class _Unsupported(ValueError):
    """The message completes the sentence "its files ..."."""


def _saved_head(folder: Path) -> tuple[SavedModule, ...]:
    config = _cross_encoder(folder)
    if not config:
        return ()
    default_prompt = config.get("default_prompt_name")
    if default_prompt and (config.get("prompts") or {}).get(default_prompt):
        raise _Unsupported("put a prompt before every text, which is not supported")
    first, *others = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    kinds = [_kind(module) for module in (first, *others)]
    if kinds[0] != "Transformer" or first["path"]:
        raise _Unsupported(f"start with the module {kinds[0]} in another folder than the root")
    task = _task(folder)
    if task == LOGITS and not others:
        return ()
    unknown = [kind for kind in kinds[1:] if kind not in HEADS]
    if unknown:
        raise _Unsupported(f"have the module {unknown[0]}, which is not supported")
    if task != STATES:
        raise _Unsupported(f"have modules after a transformer for {task}, which is not supported")
    return tuple(
        SavedModule(kind, each, _read(each / "config.json"))
        for kind, module in zip(kinds[1:], others, strict=True)
        for each in [folder / _name(module["path"])]
    )


def _cross_encoder(folder: Path) -> Json:
    """Return the config of the whole model; empty if it was not saved by `CrossEncoder`."""
    if not (folder / "modules.json").is_file():
        return {}
    config = _read(folder / "config_sentence_transformers.json")
    return config if config.get("model_type") == "CrossEncoder" else {}


def _kind(module: Json) -> str:
    package, _, rest = module["type"].partition(".")
    if package != "sentence_transformers":
        raise _Unsupported(f"have the module {module['type']}, whose code is not trusted")
    return str(rest.rpartition(".")[2])


def _task(folder: Path) -> str:
    config = _read(folder / "sentence_bert_config.json")
    for option in TRANSFORMER_OPTIONS:
        if config.get(option):
            raise _Unsupported(f"set {option}, which is not supported")
    if "message" in config.get("modality_config", {}):
        raise _Unsupported("write pairs as a chat, which is not supported")
    return str(config.get("transformer_task", STATES))


def _name(path: str) -> str:
    if Path(path).name != path:
        raise _Unsupported(f"have a module in {path!r}, which is not a folder of the model")
    return path


def _read(path: Path) -> Json:
    """Return an empty object if there is no such file."""
    if not path.is_file():
        return {}
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content
