"""Cross-encoders that consist of sentence-transformers' modules: an encoder and a head.

    encoder -> Pooling -> Dense -> LayerNorm -> Dense -> logit

The ettin rerankers have this head. Each module reads one named feature of a pass and writes one.
"""

from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from serve_app.engine.saved_modules import Json, SavedModule, torch_class

TOKENS, TEXT, SCORES = "token_embeddings", "sentence_embedding", "scores"
"""Names of features: a state for each token, one for the pair, and the logit of the pair."""


class ModularCrossEncoder(torch.nn.Module):
    """Has the interface of transformers' models for sequence classification."""

    base_model_prefix = "base_model"

    def __init__(self, base: Any, head: "Head") -> None:
        super().__init__()
        self.base_model = base
        self.head = head
        self.config = base.config
        self.architecture = f"{type(base).__name__} with {head.names}"

    def get_input_embeddings(self) -> Any:
        return self.base_model.get_input_embeddings()

    def forward(
        self, attention_mask: torch.Tensor, **inputs: torch.Tensor
    ) -> SequenceClassifierOutput:
        states = self.base_model(attention_mask=attention_mask, **inputs).last_hidden_state
        return SequenceClassifierOutput(logits=self.head(states, attention_mask))


class Head(torch.nn.Module):
    """The modules after the encoder."""

    def __init__(self, modules: tuple[SavedModule, ...]) -> None:
        """Raises: one of `serve_app.engine.models.LOAD_ERRORS`, also for unknown options."""
        super().__init__()
        self.names = ", ".join(module.kind for module in modules)
        self._layers = torch.nn.ModuleList(_load(module) for module in modules)
        self._features = [_features(module) for module in modules]

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return (B, 1) for states (B, L, H) and a mask (B, L) of right-padded sequences."""
        features = {TOKENS: states}
        for layer, (read, written) in zip(self._layers, self._features, strict=True):
            mask = (attention_mask,) if isinstance(layer, Pooling) else ()
            features[written] = layer(features[read], *mask)
        return features[SCORES]


class Pooling(torch.nn.Module):
    """Combines the states of a sequence's tokens, in one or several ways side by side."""

    MODES = ("cls", "lasttoken", "max", "mean")

    def __init__(self, modes: list[str]) -> None:
        super().__init__()
        unknown = [mode for mode in modes if mode not in self.MODES]
        if unknown:
            raise ValueError(f"pooling by {unknown[0]} is not supported")
        self._modes = modes

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return (B, M H) for M modes."""
        return torch.cat([self._pool(mode, states, attention_mask) for mode in self._modes], dim=-1)

    @staticmethod
    def _pool(mode: str, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if mode == "cls":
            return states[:, 0]
        mask = attention_mask[:, :, None]
        if mode == "max":
            return states.masked_fill(mask == 0, float("-inf")).amax(dim=1)
        if mode == "mean":
            return (states * mask).sum(dim=1) / mask.sum(dim=1)
        last = mask.sum(dim=1, keepdim=True) - 1
        return states.take_along_dim(last, dim=1).squeeze(1)


class Dense(torch.nn.Module):
    """A linear layer with an activation, and with an optional path around both."""

    def __init__(self, options: Json) -> None:
        super().__init__()
        sizes = options["in_features"], options["out_features"]
        self.linear = torch.nn.Linear(*sizes, bias=options.get("bias", True))
        self.activation = _activation(options.get("activation_function"))
        self.around = bool(options.get("use_residual"))
        if self.around and sizes[0] != sizes[1]:
            self.residual = torch.nn.Linear(*sizes, bias=False)
        else:
            self.residual = torch.nn.Identity()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        computed: torch.Tensor = self.activation(self.linear(values))
        return computed + self.residual(values) if self.around else computed


class LayerNorm(torch.nn.Module):
    """A layer norm, under the name that its saved weights have."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(dimension)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        normalized: torch.Tensor = self.norm(values)
        return normalized


class Normalize(torch.nn.Module):
    """Scales vectors to length 1."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return functional.normalize(values, dim=-1)


def _load(module: SavedModule) -> torch.nn.Module:
    layer = _build(module)
    if layer.state_dict():
        layer.load_state_dict(load_file(module.folder / "model.safetensors"))
    return layer.float()


def _build(module: SavedModule) -> torch.nn.Module:
    options = module.options
    match module.kind:
        case "Pooling":
            return Pooling(_modes(options))
        case "Dense":
            return Dense(options)
        case "LayerNorm":
            return LayerNorm(options["dimension"])
        case "Normalize":
            return Normalize()
        case _:  # Dropout, which does nothing outside training.
            return torch.nn.Identity()


def _features(module: SavedModule) -> tuple[str, str]:
    """Return the features that ``module`` reads and writes."""
    if module.kind == "Pooling":
        return TOKENS, TEXT
    read = module.options.get("module_input_name") or TEXT
    return read, module.options.get("module_output_name") or read


def _modes(options: Json) -> list[str]:
    mode = options.get("pooling_mode", "mean")
    return [mode] if isinstance(mode, str) else list(mode)


def _activation(path: str | None) -> torch.nn.Module:
    if path is None:
        return torch.nn.Tanh()
    activation = getattr(torch.nn, torch_class(path), None)
    if not (isinstance(activation, type) and issubclass(activation, torch.nn.Module)):
        raise ValueError(f"there is no activation {path}")
    return activation()
