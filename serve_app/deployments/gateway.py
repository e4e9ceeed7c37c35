"""The Gateway deployment: it hosts the HTTP app and connects its components.

Blocking work runs on threads, because with Ray's throughput settings user code shares the event
loop with Ray's router and health checks.
"""

import asyncio
import gc
import sys
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ray import serve
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.access.authenticator import Authenticator
from serve_app.admission.gate import SharedGate
from serve_app.admission.places import CHANGES, REPORTS, Places
from serve_app.admission.refusals import RefusalBudget
from serve_app.deployments.catalogue import Catalogue
from serve_app.deployments.gateway_models import GatewayModel, GatewayModels, Shared
from serve_app.deployments.logs import join_serve_log
from serve_app.deployments.metrics import ray_metrics_sink
from serve_app.deployments.monitor import Monitor, Replicas
from serve_app.deployments.traces import connect
from serve_app.domain.canary import Comparison
from serve_app.domain.clock import SystemClock
from serve_app.domain.model_names import ModelNames
from serve_app.domain.units import Credits, ModelId, Seconds, Tokens
from serve_app.engine.export_cache import EXPORTS
from serve_app.engine.tokenizer import limit_threads
from serve_app.http.app import build_app
from serve_app.http.service import Service
from serve_app.ledger.back_office import BackOffice
from serve_app.ledger.db import comparisons
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.events.delivery import Delivery, HttpSink
from serve_app.ledger.events.queue import EventQueue
from serve_app.ledger.money.pricing import PriceList
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.pipeline import Pipeline
from serve_app.private_files import private_folder
from serve_app.protocols.limits import Limits
from serve_app.settings.gateway import Settings
from serve_app.settings.live import LiveSettings
from serve_app.shadow import Shadows
from serve_app.telemetry.logs import emit, get_logger
from serve_app.telemetry.recent import RecentCodes
from serve_app.telemetry.traces import Collector, NoCollector, Traces

logger = get_logger(__name__)


@serve.deployment
@serve.ingress()
class Gateway:
    """One replica: receives HTTP requests, sends portions, writes charges to the ledger."""

    def __init__(self, settings: Settings) -> None:
        join_serve_log()
        self._app = CurrentApp()
        self._live: LiveSettings | None = None
        self._settings = settings
        self._clock = SystemClock()
        if settings.ledger_is_in_var_dir:
            private_folder(settings.var_dir)
        migrate(settings.resolved_database_url)
        self._metrics = ray_metrics_sink()
        self._collector: Collector | None = None
        self._ledger = SqlLedger(
            settings.resolved_database_url,
            self._clock,
            Seconds(settings.reservation_margin_s),
            LedgerLimits(
                database_timeout_s=Seconds(settings.database_timeout_s),
                charges_kept_days=settings.charges_kept_days,
            ),
            events=bool(settings.events_url),
        )
        self._delivery = self._event_delivery() if settings.events_url else None
        self._office = BackOffice(
            settings.resolved_database_url, Seconds(settings.database_timeout_s)
        )
        limit_threads(settings.tokenizer_threads)
        self._threads = {
            name: ThreadPoolExecutor(settings.tokenizer_threads, thread_name_prefix=name)
            for name in ("tokenizer", "parser")
        }
        self._id = uuid.uuid4().hex
        gate = SharedGate(settings.gate_tokens_max)
        self._models = GatewayModels(
            Shared(
                settings.var_dir / EXPORTS,
                self._id,
                gate,
                Tokens(settings.portion_tokens_max),
                self._threads["tokenizer"],
                Shadows(gate, self._store, self._metrics, self._clock),
                self._metrics,
                self._clock,
            )
        )
        self._ledger.start()
        if self._delivery is not None:
            self._delivery.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the app.

        Serve calls this on the replica's event loop, after the constructor and before
        `reconfigure`.
        """
        settings, clock = self._settings, self._clock
        self._access = Authenticator(
            self._ledger, clock, self._metrics, Seconds(settings.key_cache_s)
        )
        self._body_gate = SharedGate(settings.body_bytes_held_max)
        self._places, self._report_places = Places(clock), Places(clock, REPORTS)
        self._change_places = Places(clock, CHANGES)
        self._refusal_budget = RefusalBudget(clock)
        self._replicas, self._recent_codes = Replicas(clock), RecentCodes(clock)
        return self._app

    async def _store(self, comparison: Comparison) -> None:
        await self._office.write(partial(comparisons.add, comparison=comparison))

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Use these `LiveSettings` for requests that arrive from now on.

        Settings that are invalid, or whose models cannot be loaded, are logged and not used,
        because Serve stops a replica that raises here, and starts no other. Only a replica's first
        settings raise.
        """
        try:
            settings = LiveSettings(**user_config)
            traces = await self._traces(settings)
            models = await self._models.load(settings.models)
        except Exception as error:
            if self._live is None:
                raise
            logger.error("user_config_refused", extra={"reason": str(error)})
        else:
            self._app.current = build_app(self._service(settings, models, traces))
            if self._live is None:
                share_the_interpreter()
            self._live = settings
            logger.info("user_config_in_force", extra={"models": [*models]})

    async def _traces(self, settings: LiveSettings) -> Traces:
        if settings.traces == "none":
            return Traces(NoCollector(), self._clock)
        if self._collector is None:
            self._collector = await asyncio.to_thread(connect, "rerank-gateway")
        return Traces(self._collector, self._clock, with_texts=settings.traces == "with_texts")

    def _service(
        self, settings: LiveSettings, models: Mapping[ModelId, GatewayModel], traces: Traces
    ) -> Service:
        return Service(
            pipeline=Pipeline(
                ledger=self._ledger,
                pricing=PriceList({model: each.settings.tariff for model, each in models.items()}),
                models={model: each.served for model, each in models.items()},
                metrics=self._metrics,
                clock=self._clock,
            ),
            access=self._access,
            catalogue=Catalogue(
                tuple(each.card for each in models.values()),
                {model: each.live.scorer for model, each in models.items()},
                {model: each.live.dispatcher for model, each in models.items()},
                self._ledger.ping,
                self._clock,
            ),
            office=self._office,
            monitor=Monitor(self._id, serve.get_replica_context().app_name, models, self._replicas),
            recent_codes=self._recent_codes,
            clock=self._clock,
            metrics=self._metrics,
            limits=_limits(settings),
            parsers=self._threads["parser"],
            model_names=ModelNames(
                {model: each.settings.aliases for model, each in models.items()}
            ),
            free_credit=Credits(self._settings.free_credit_micro_dollars),
            body_gate=self._body_gate,
            places=self._places,
            report_places=self._report_places,
            change_places=self._change_places,
            refusal_budget=self._refusal_budget,
            log=emit,
            traces=traces,
            cors_allowed_origins=settings.cors_allowed_origins,
            server_names_answers=True,  # Ray adds the header with the request id.
        )

    def _event_delivery(self) -> Delivery:
        settings = self._settings
        timeout_s = Seconds(settings.database_timeout_s)
        queue = EventQueue(settings.resolved_database_url, timeout_s)
        sink = HttpSink(settings.events_url, settings.events_token.get_secret_value())
        return Delivery(queue, sink, self._metrics, self._clock)

    def check_health(self) -> None:
        """Raises: RuntimeError without settings; LedgerUnavailable when the writer has ended."""
        if self._live is None:
            raise RuntimeError("the gateway has no user_config; see docs/reference/settings.md")
        self._ledger.check()

    def __del__(self) -> None:
        """Complete pending writes and stop all threads, when Serve stops the replica."""
        self._ledger.close()
        if self._delivery is not None:
            self._delivery.close()
        self._office.close()
        for threads in self._threads.values():
            threads.shutdown()
        self._models.close()
        if self._collector is not None:
            self._collector.close()


class CurrentApp:
    """The ASGI application with the current settings."""

    def __init__(self) -> None:
        self.current: ASGIApp = Starlette()  # It handles the lifespan, before there are settings.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.current(scope, receive, send)


def share_the_interpreter() -> None:
    """Keep large jobs in threads from delaying the event loop.

    A thread that runs Python code yields after 0.2 ms instead of 5 ms, because the event loop must
    run about twenty times for each request. While a thread tokenizes 10,000 documents, a small
    request then takes 1.4 times as long as alone, and not five times. The garbage collector skips
    objects that exist now, which saves 0.1 s per collection.
    """
    sys.setswitchinterval(0.000_2)
    gc.collect()
    gc.freeze()


def _limits(settings: LiveSettings) -> Limits:
    return Limits(
        body_bytes_max=settings.body_bytes_max,
        documents_per_request_max=settings.documents_per_request_max,
        query_characters_max=settings.query_characters_max,
        request_timeout_s=Seconds(settings.request_timeout_s),
        request_timeout_s_max=Seconds(settings.request_timeout_s_max),
        body_timeout_s=Seconds(settings.body_timeout_s),
    )
