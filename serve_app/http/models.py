"""``GET /v1/models`` and ``GET /v1/models/{id}``: the models that the caller's key may use."""

from starlette.requests import Request
from starlette.responses import Response

from serve_app.domain.errors import Forbidden, NotFound
from serve_app.domain.model import Caller, ModelCard
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import sent_keys
from serve_app.http.rerank.endpoint import SCOPE
from serve_app.http.service import Service
from serve_app.protocols.json_body import shown
from serve_app.protocols.models_list import render_model, render_models


def models_endpoints(service: Service) -> tuple[Endpoint, Endpoint]:
    """Return the endpoint of the list and the endpoint of one model."""

    async def list_models(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), SCOPE)
        cards = [card for card in await service.catalogue.cards() if _may_use(caller, card)]
        return _json(render_models(cards, service.limits))

    async def get_model(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), SCOPE)
        card = await _card(service, request.path_params["id"])
        if not _may_use(caller, card):
            raise Forbidden(f"the model '{card.id}'")
        return _json(render_model(card, service.limits))

    return list_models, get_model


def _may_use(caller: Caller, card: ModelCard) -> bool:
    return caller.models is None or card.id in caller.models


async def _card(service: Service, name: str) -> ModelCard:
    wanted = service.model_names.resolve(name)
    for card in await service.catalogue.cards():
        if card.id == wanted:
            return card
    raise NotFound(f"model '{shown(name)}'; GET /v1/models lists them", "model")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
