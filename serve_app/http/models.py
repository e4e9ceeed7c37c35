"""``GET /v1/models``, ``GET /v1/models/{id}`` and the routes of other servers for models.

They show only models that the caller's key may use.
"""

from starlette.requests import Request
from starlette.responses import Response

from serve_app import __version__
from serve_app.access.api_keys import SCOPE_MANAGE
from serve_app.domain.errors import Forbidden, NotFound
from serve_app.domain.model import Caller
from serve_app.domain.model_card import ModelCard
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import is_cohere, sent_keys
from serve_app.http.rerank.endpoint import SCOPE
from serve_app.http.service import Service
from serve_app.protocols.cohere_models import render_cohere_model, render_cohere_models
from serve_app.protocols.infinity import render_infinity_models
from serve_app.protocols.json_body import shown
from serve_app.protocols.models_list import render_model, render_models
from serve_app.protocols.tei import render_info

SCOPES = (SCOPE, SCOPE_MANAGE)
"""`/v1/models` needs one of these: managers of keys choose from its models, too."""


def models_endpoints(service: Service) -> tuple[Endpoint, Endpoint]:
    default = service.model_names.resolve(None)

    async def list_models(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), *SCOPES)
        cards = await _cards(service, caller)
        if is_cohere(request.headers):
            return _json(render_cohere_models(cards, default, request.query_params))
        return _json(render_models(cards, service.limits))

    async def get_model(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), *SCOPES)
        card = await _card(service, caller, request.path_params["id"])
        if is_cohere(request.headers):
            return _json(render_cohere_model(card, default))
        return _json(render_model(card, service.limits))

    return list_models, get_model


def info_endpoint(service: Service) -> Endpoint:
    """Return the endpoint of TEI's ``/info`` for the default model."""

    async def info(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), SCOPE)
        card = await _card(service, caller, None)
        return _json(render_info(card, service.limits, service.places.key_max, __version__))

    return info


def infinity_models_endpoint(service: Service) -> Endpoint:
    async def list_models(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), SCOPE)
        return _json(render_infinity_models(await _cards(service, caller)))

    return list_models


async def _cards(service: Service, caller: Caller) -> list[ModelCard]:
    return [card for card in await service.catalogue.cards() if _may_use(caller, card)]


def _may_use(caller: Caller, card: ModelCard) -> bool:
    return caller.models is None or card.id in caller.models


async def _card(service: Service, caller: Caller, name: str | None) -> ModelCard:
    wanted = service.model_names.resolve(name)
    for card in await service.catalogue.cards():
        if card.id == wanted:
            if not _may_use(caller, card):
                raise Forbidden(f"the model '{card.id}'")
            return card
    raise NotFound(f"model '{shown(wanted)}'; GET /v1/models lists them", "model")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
