"""The clients under test, and what each of them cannot do because of its own code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Check(StrEnum):
    """What a client is tried for."""

    RANKING = "ranking"
    TOP_N = "top n"
    DOCUMENTS = "documents"
    UNAUTHENTICATED = "401"
    OUT_OF_CREDIT = "402"
    TOO_LARGE = "413"
    RETRY = "429"
    USAGE = "usage"


ERRORS = (Check.UNAUTHENTICATED, Check.OUT_OF_CREDIT, Check.TOO_LARGE, Check.RETRY)


@dataclass(frozen=True, slots=True)
class Line:
    """The line of a client's code because of which it fails a check."""

    file: str
    """Its path in the folder of installed packages."""

    code: str


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    """One client library, or one of its classes."""

    name: str
    package: str
    """The package whose version counts, as its registry spells it."""

    env: str
    script: str
    """A file in ``scripts``, and after a colon the client's name in it."""

    path: str
    """What follows the address of the service in the base URL."""

    fails: Mapping[Check, Line] = field(default_factory=dict)
    note: str = ""
    impatient: bool = False
    """Whether it repeats refused requests sooner than ``Retry-After`` says."""

    core: bool = False
    """Whether `make test` tries it."""


def _failing(line: Line, *checks: Check) -> dict[Check, Line]:
    return dict.fromkeys(checks, line)


def _cohere() -> Iterator[Client]:
    file = "cohere/v2/types/v2rerank_response_results_item.py"
    no_documents = _failing(
        Line(file, "class V2RerankResponseResultsItem(UncheckedBaseModel):"), Check.DOCUMENTS
    )
    for env in ("cohere-5", "cohere-6", "cohere-7"):
        core = env == "cohere-7"
        yield Client("`cohere.Client`", "cohere", env, "cohere_clients.py:v1", "", core=core)
        for name, of in (("ClientV2", "v2"), ("AsyncClientV2", "async")):
            script = f"cohere_clients.py:{of}"
            yield Client(f"`cohere.{name}`", "cohere", env, script, "", no_documents, core=core)


def _other_libraries() -> Iterator[Client]:
    for name, of in (("OpenAI", "sync"), ("AsyncOpenAI", "async")):
        script = f"openai_clients.py:{of}"
        yield Client(f"`openai.{name}`", "openai", "cohere-7", script, "/v1", core=of == "sync")
    for env, name, of in (
        ("voyage", "Client", "sync"),
        ("voyage", "AsyncClient", "async"),
        ("voyage-0.3", "Client", "sync"),
    ):
        script = f"voyage_clients.py:{of}"
        note = "repeats requests with `max_retries` above 0"
        core = (env, of) == ("voyage", "sync")
        yield Client(
            f"`voyageai.{name}`",
            "voyageai",
            env,
            script,
            "/voyage/v1",
            note=note,
            impatient=True,
            core=core,
        )
    file = "infinity_client/api/default/rerank.py"
    yield Client(
        "`infinity_client`",
        "infinity-client",
        "cohere-7",
        "infinity_clients.py:sync",
        "/infinity",
        _failing(
            Line(file, "raise errors.UnexpectedStatus(response.status_code, response.content)"),
            Check.RETRY,
        ),
        note="shows errors with `raise_on_unexpected_status=True`",
        core=True,
    )
    file = "lightrag/rerank.py"
    no_usage = _failing(Line(file, 'results = response_json.get("results", [])'), Check.USAGE)
    for name, path, code in (
        ("cohere", "/v2/rerank", "return_documents=None,  # Cohere doesn't support this parameter"),
        ("jina", "/v1/rerank", "return_documents=False,"),
    ):
        yield Client(
            f"LightRAG: `{name}_rerank`",
            "lightrag-hku",
            "lightrag",
            f"lightrag_clients.py:{name}",
            path,
            no_usage | _failing(Line(file, code), Check.DOCUMENTS),
            impatient=True,
        )


def _rerankers() -> Iterator[Client]:
    file = "rerankers/models/api_rankers.py"
    fails = _failing(
        Line(file, "results = self._parse_response(response.json(), docs)"), *ERRORS
    ) | _failing(
        Line(file, "return RankedResults(results=results, query=query, has_scores=True)"),
        Check.USAGE,
    )
    for provider, path in (
        ("cohere", "/v1/rerank"),
        ("jina", "/v1/rerank"),
        ("voyage", "/voyage/v1/rerank"),
        ("text-embeddings-inference", "/rerank"),
    ):
        yield Client(
            f"rerankers: `{provider}`",
            "rerankers",
            "cohere-7",
            f"rerankers_clients.py:{provider}",
            path,
            fails,
            core=provider == "jina",
        )


def _litellm() -> Iterator[Client]:
    no_retry = _failing(
        Line("litellm/utils.py", "if call_type == CallTypes.completion.value:"), Check.RETRY
    )
    for provider, path in (
        ("cohere", ""),
        ("jina_ai", ""),
        ("voyage", "/voyage/v1"),
        ("infinity", "/infinity"),
        ("huggingface", ""),
        ("nvidia_nim", ""),
        ("nvidia_nim/ranking", ""),
        ("hosted_vllm", ""),
        ("together_ai", "/v1"),
        ("fireworks_ai", "/v1"),
        ("litellm_proxy", ""),
    ):
        fails, note = no_retry, ""
        if provider == "huggingface":
            fails = fails | _failing(
                Line(
                    "litellm/llms/huggingface/rerank/transformation.py",
                    "estimated_input_tokens = token_counter(model=model, text=input_text)",
                ),
                Check.USAGE,
            )
        if provider == "fireworks_ai":
            fails = fails | _failing(
                Line(
                    "litellm/llms/fireworks_ai/rerank/transformation.py",
                    "_billed_units: Final = "
                    "RerankBilledUnits(search_units=usage_fields.total_tokens)",
                ),
                Check.USAGE,
            )
            note = "sends the model as `fireworks/NAME`, which must be an alias"
        yield Client(
            f"LiteLLM: `{provider}/`",
            "litellm",
            "litellm",
            f"litellm_clients.py:{provider}",
            path,
            fails,
            note,
        )
    yield Client(
        "LiteLLM's proxy, as `jina_ai/`",
        "litellm",
        "litellm",
        "litellm_proxy.py:proxy",
        "/v1/rerank",
        note="the costs that it logs for 200 requests of different sizes equal the charges "
        "([LiteLLM](python-clients.md#litellm))",
    )


def _langchain() -> Iterator[Client]:
    script = "langchain_clients.py"
    kept = Line(
        "langchain_cohere/rerank.py",
        '{"index": res.index, "relevance_score": res.relevance_score}',
    )
    yield Client(
        "LangChain: `CohereRerank`",
        "langchain-cohere",
        "cohere-5",
        f"{script}:cohere",
        "",
        _failing(kept, Check.USAGE),
    )
    made = "self.client = voyageai.Client(api_key=api_key_str, base_url=self.base_url)"
    yield Client(
        "LangChain: `VoyageAIRerank`",
        "langchain-voyageai",
        "voyage",
        f"{script}:voyage",
        "/voyage/v1",
        _failing(Line("langchain_voyageai/rerank.py", made), Check.RETRY),
        core=True,
    )
    file = "langchain_community/document_compressors/infinity_rerank.py"
    yield Client(
        "LangChain: `InfinityRerank`",
        "langchain-community",
        "langchain",
        f"{script}:infinity",
        "/infinity",
        _failing(Line(file, "results = rerank.sync(client=self.client, body=input)"), Check.RETRY)
        | _failing(Line(file, 'results = getattr(results, "results")'), Check.USAGE),
        note="needs an `infinity_client.Client` with the header `Authorization`",
    )
    folder = "langchain_nvidia_ai_endpoints"
    yield Client(
        "LangChain: `NVIDIARerank`",
        "langchain-nvidia-ai-endpoints",
        "langchain",
        f"{script}:nvidia",
        "/v1",
        _failing(Line(f"{folder}/_common.py", "response.raise_for_status()"), Check.RETRY)
        | _failing(Line(f"{folder}/reranking.py", 'rankings = result["rankings"]'), Check.USAGE),
    )


def _llama_index() -> Iterator[Client]:
    def client(title: str, package: str, env: str, name: str, path: str, **more: object) -> Client:
        file = f"llama_index/postprocessor/{package}/base.py"
        fails = {check: Line(file, code) for check, code in LLAMA_INDEX_CODE[name].items()}
        return Client(
            f"LlamaIndex: `{title}`",
            f"llama-index-postprocessor-{package.replace('_', '-')}",
            env,
            f"llama_index_clients.py:{name}",
            path,
            fails,
            note=str(more.get("note", "")),
            core=bool(more.get("core")),
        )

    yield client("CohereRerank", "cohere_rerank", "cohere-6", "cohere", "")
    yield client("JinaRerank", "jinaai_rerank", "llama-index", "jina", "/v1", core=True)
    yield client("TextEmbeddingInference", "tei_rerank", "llama-index", "tei", "", core=True)
    yield client("NVIDIARerank", "nvidia_rerank", "llama-index", "nvidia", "/v1", core=True)
    note = 'has no parameter for the base URL; it is set in `_client._params["base_url"]`'
    yield client(
        "VoyageAIRerank", "voyageai_rerank", "voyage-0.3", "voyage", "/voyage/v1", note=note
    )


LLAMA_INDEX_CODE: Mapping[str, Mapping[Check, str]] = {
    "cohere": {Check.USAGE: "for result in results.results:"},
    "jina": {
        Check.RETRY: 'raise RuntimeError(resp["detail"])',
        Check.USAGE: 'results = resp["results"]',
    },
    "tei": dict.fromkeys(ERRORS, "assert len(scores) == len(nodes)")
    | {Check.USAGE: "for score_item in scores:"},
    "nvidia": {
        Check.RETRY: "response.raise_for_status()",
        Check.USAGE: 'for result in response.json()["rankings"][: self.top_n]:',
    },
    "voyage": {
        Check.RETRY: "self._client = Client(api_key=api_key)",
        Check.USAGE: ").results",
    },
}


def _haystack() -> Iterator[Client]:
    folder = "haystack_integrations/components/rankers"
    backend = "haystack_integrations/utils/nvidia/nim_backend.py"
    fails = {
        "cohere": _failing(
            Line(f"{folder}/cohere/ranker.py", 'return {"documents": sorted_docs}'), Check.USAGE
        ),
        "jina": _failing(
            Line(f"{folder}/jina/ranker.py", 'raise RuntimeError(resp["detail"])'), Check.RETRY
        ),
        "vllm": _failing(Line(f"{folder}/vllm/ranker.py", "raise RuntimeError(msg)"), Check.RETRY),
        "tei": _failing(
            Line(f"{folder}/huggingface_api/ranker.py", "if not isinstance(result, list):"),
            Check.USAGE,
        ),
        "nvidia": _failing(Line(backend, "raise ValueError(msg) from e"), Check.RETRY)
        | _failing(Line(backend, 'return data["rankings"]'), Check.USAGE),
    }
    for title, package, name, path in (
        ("CohereRanker", "cohere-haystack", "cohere", ""),
        ("JinaRanker", "jina-haystack", "jina", "/v1/rerank"),
        ("HuggingFaceTEIRanker", "huggingface-api-haystack", "tei", ""),
        ("VLLMRanker", "vllm-haystack", "vllm", "/v1"),
        ("NvidiaRanker", "nvidia-haystack", "nvidia", "/v1"),
    ):
        script = f"haystack_clients.py:{name}"
        yield Client(
            f"Haystack: `{title}`",
            package,
            "haystack",
            script,
            path,
            fails[name],
            impatient=name == "tei",
            core=True,
        )


def _javascript() -> Iterator[Client]:
    types = "cohere-ai/api/resources/v2/types/V2RerankResponseResultsItem.d.ts"
    langchain = "@langchain/cohere/dist/rerank.js"
    fails = {
        "cohere-v2": _failing(
            Line(types, "export interface V2RerankResponseResultsItem {"), Check.DOCUMENTS
        ),
        "langchain-cohere": _failing(
            Line(langchain, "const { results } = await this.client.rerank({"), Check.USAGE
        ),
    }
    for title, package, name, path in (
        ("`CohereClient`", "cohere-ai", "cohere-v1", ""),
        ("`CohereClientV2`", "cohere-ai", "cohere-v2", ""),
        ("`VoyageAIClient`", "voyageai", "voyage", "/voyage/v1"),
        ("`rerank` of `ai` with Cohere", "@ai-sdk/cohere", "ai-cohere", "/v2"),
        ("`rerank` of `ai` with Voyage", "voyage-ai-provider", "ai-voyage", "/voyage/v1"),
        ("LangChain's `CohereRerank`", "@langchain/cohere", "langchain-cohere", ""),
        ("`OpenAI`", "openai", "openai", "/v1"),
    ):
        yield Client(
            f"JavaScript: {title}",
            package,
            "javascript",
            f"javascript_clients.mjs:{name}",
            path,
            fails.get(name, {}),
            core=True,
        )


def _aiperf() -> Iterator[Client]:
    fails = _failing(
        Line(
            "aiperf/transports/aiohttp_client.py",
            "if response.status < 200 or response.status >= 300:",
        ),
        Check.RETRY,
    ) | _failing(
        Line(
            "aiperf/endpoints/base_rankings_endpoint.py",
            "perf_ns=response.perf_ns, data=RankingsResponseData(rankings=rankings)",
        ),
        *(Check.DOCUMENTS, Check.USAGE),
    )
    for name in ("cohere-rankings", "hf-tei-rankings", "nim-rankings"):
        yield Client(
            f"AIPerf: `{name}`", "aiperf", "aiperf", f"aiperf_clients.py:{name}", "", fails
        )


CLIENTS: tuple[Client, ...] = (
    *_cohere(),
    *_other_libraries(),
    *_rerankers(),
    *_litellm(),
    *_langchain(),
    *_llama_index(),
    *_haystack(),
    *_javascript(),
    *_aiperf(),
)
