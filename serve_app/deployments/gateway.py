"""The Gateway deployment: hosts the HTTP app and owns one pipeline.

It creates and connects the components. Blocking work (tokenizers, ledger, events) runs on threads,
because with Ray's throughput settings user code shares the event loop with Ray's router and health
checks.
"""

import gc
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.access.authenticator import Authenticator
from serve_app.admission.door import Admission
from serve_app.admission.gate import SharedGate
from serve_app.admission.places import REPORTS, Places
from serve_app.admission.refusals import RefusalBudget
from serve_app.deployments.autoscaling import backlog_stat
from serve_app.deployments.catalogue import Catalogue
from serve_app.deployments.clients import HandleScorer
from serve_app.deployments.logs import join_serve_log
from serve_app.deployments.metrics import ray_metrics_sink
from serve_app.dispatch.dispatcher import Dispatcher
from serve_app.domain.clock import SystemClock
from serve_app.domain.model_card import ModelCard
from serve_app.domain.model_names import ModelNames
from serve_app.domain.units import Credits, ModelId, Seconds, Tokens
from serve_app.engine.loading import load_tokenizer
from serve_app.engine.tokenizer import limit_threads
from serve_app.engine.tokenizer_process import TokenizerProcess
from serve_app.engine.tokenizer_threads import ThreadedTokenizer
from serve_app.http.app import build_app
from serve_app.http.service import Service
from serve_app.ledger.back_office import BackOffice
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.events.delivery import Delivery, HttpSink
from serve_app.ledger.events.queue import EventQueue
from serve_app.ledger.money.pricing import PriceList
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.pipeline import Pipeline, ServedModel
from serve_app.private_files import private_folder
from serve_app.protocols.limits import Limits
from serve_app.settings import ModelSettings, Settings
from serve_app.telemetry.logs import emit


@serve.deployment
@serve.ingress()
class Gateway:
    """One replica: receives HTTP requests, sends portions, writes charges to the ledger."""

    def __init__(self, settings: Settings, scorers: Mapping[str, DeploymentHandle]) -> None:
        join_serve_log()
        self._settings = settings
        self._clock = SystemClock()
        if settings.ledger_is_in_var_dir:
            private_folder(settings.var_dir)
        migrate(settings.resolved_database_url)
        self._metrics = ray_metrics_sink()
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
        self._tokenizers = {
            ModelId(model.id): load_tokenizer(model.source, model.revision, model.pair_tokens_max)
            for model in settings.models
        }
        self._tokenizer_processes = {
            model: TokenizerProcess(tokenizer) for model, tokenizer in self._tokenizers.items()
        }
        # A process tokenizes one job at a time.
        self._large_job_threads = {model: ThreadPoolExecutor(1) for model in self._tokenizers}
        self._scorers = {
            ModelId(model): HandleScorer(handle, self._clock) for model, handle in scorers.items()
        }
        self._ledger.start()
        if self._delivery is not None:
            self._delivery.start()
        share_the_interpreter()

    def __serve_build_asgi_app__(self) -> object:
        """Build the app. Serve calls this on the replica's event loop after the constructor."""
        settings = self._settings
        self._dispatchers = {model: self._dispatcher(model) for model in self._tokenizers}
        return build_app(
            Service(
                pipeline=self._pipeline(),
                access=Authenticator(
                    self._ledger, self._clock, self._metrics, Seconds(settings.key_cache_s)
                ),
                catalogue=Catalogue(
                    tuple(self._card(model) for model in settings.models),
                    self._scorers,
                    self._ledger.ping,
                    self._clock,
                ),
                office=self._office,
                clock=self._clock,
                metrics=self._metrics,
                limits=_limits(settings),
                parsers=self._threads["parser"],
                model_names=ModelNames(
                    {ModelId(model.id): model.aliases for model in settings.models}
                ),
                free_credit=Credits(settings.free_credit_micro_dollars),
                body_gate=SharedGate(settings.body_bytes_held_max),
                places=Places(self._clock),
                report_places=Places(self._clock, REPORTS),
                refusal_budget=RefusalBudget(self._clock),
                log=emit,
                cors_allowed_origins=settings.cors_allowed_origins,
                server_names_answers=True,  # Ray sets the client's request id or one of its own.
            )
        )

    def _pipeline(self) -> Pipeline:
        settings = self._settings
        return Pipeline(
            admission=Admission(
                SharedGate(settings.gate_tokens_max),
                {model: each.pair_tokens_max for model, each in self._tokenizers.items()},
                self._metrics,
                self._clock,
            ),
            ledger=self._ledger,
            pricing=PriceList({ModelId(model.id): model.tariff for model in settings.models}),
            models={
                model: ServedModel(self._tokenizer(model), self._dispatchers[model])
                for model in self._tokenizers
            },
            metrics=self._metrics,
            clock=self._clock,
        )

    def _tokenizer(self, model: ModelId) -> ThreadedTokenizer:
        return ThreadedTokenizer(
            self._tokenizers[model],
            self._tokenizer_processes[model],
            small_threads=self._threads["tokenizer"],
            large_threads=self._large_job_threads[model],
        )

    def _event_delivery(self) -> Delivery:
        settings = self._settings
        timeout_s = Seconds(settings.database_timeout_s)
        queue = EventQueue(settings.resolved_database_url, timeout_s)
        sink = HttpSink(settings.events_url, settings.events_token.get_secret_value())
        return Delivery(queue, sink, self._metrics, self._clock)

    def _dispatcher(self, model: ModelId) -> Dispatcher:
        portion_tokens_max = portion_limit(self._settings, self._tokenizers[model].pair_tokens_max)
        return Dispatcher(
            model,
            self._scorers[model],
            portion_tokens_max,
            self._metrics,
            self._clock,
        )

    def _card(self, model: ModelSettings) -> ModelCard:
        return ModelCard(
            id=ModelId(model.id),
            source=model.source,
            revision=model.revision,
            description="",
            precision=model.precision,
            device=None,
            tariff=model.tariff,
            pair_tokens_max=self._tokenizers[ModelId(model.id)].pair_tokens_max,
            ready=False,
            activation=None,
            aliases=model.aliases,
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {
            backlog_stat(model.deployment_name): float(
                self._dispatchers[ModelId(model.id)].backlog_tokens
            )
            for model in self._settings.models
        }

    def check_health(self) -> None:
        """Raises: LedgerUnavailable when the ledger's writer thread has ended."""
        self._ledger.check()

    def __del__(self) -> None:
        """Complete pending writes and stop all threads. Serve calls this when the replica stops."""
        self._ledger.close()
        if self._delivery is not None:
            self._delivery.close()
        self._office.close()
        for threads in (*self._threads.values(), *self._large_job_threads.values()):
            threads.shutdown()
        for process in self._tokenizer_processes.values():
            process.close()


def share_the_interpreter() -> None:
    """Keep large jobs in threads from delaying the event loop of this process.

    A thread in Python code yields after 0.2 ms, not 5 ms: the event loop needs its turn some twenty
    times in each request. Next to a thread that tokenizes 10,000 documents, a small request takes
    1.4 times as long as alone, with 1 ms twice and with 5 ms five times as long. Objects that exist
    now are never garbage, so the collector need not look at them again, for 0.1 s each time.
    """
    sys.setswitchinterval(0.000_2)
    gc.collect()
    gc.freeze()


def portion_limit(settings: Settings, pair_tokens_max: int) -> Tokens:
    """Return the most tokens of a portion: the setting, but at least the model's longest pair."""
    return Tokens(max(settings.portion_tokens_max, pair_tokens_max))


def _limits(settings: Settings) -> Limits:
    return Limits(
        body_bytes_max=settings.body_bytes_max,
        documents_per_request_max=settings.documents_per_request_max,
        query_characters_max=settings.query_characters_max,
        request_timeout_s=Seconds(settings.request_timeout_s),
        request_timeout_s_max=Seconds(settings.request_timeout_s_max),
        body_timeout_s=Seconds(settings.body_timeout_s),
    )
