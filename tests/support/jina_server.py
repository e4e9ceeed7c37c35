"""A small server with Jina's API, for tests of the conformance checks."""

import json
from collections.abc import Mapping
from typing import Any

import httpx

KEY, LIMITED_KEY = "a-key", "a-limited-key"
MODEL = "a-model"
DOCUMENTS_MAX = 150
OPTIONS = ("top_k", "truncation", "max_tokens_per_doc", "use_activation")
STOP_WORDS = {*("a", "and", "by", "do", "how", "i", "in", "is", "my", "the", "to", "who", "what")}
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-headers": "authorization, content-type",
}


class Refused(Exception):
    """A request is refused with a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class JinaServer:
    """Scores a document by the words that it shares with the query. ``faults`` are its bugs."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        self.requests = 0
        self.limited = 0
        self.charged = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        headers = {} if "no cors" in self.faults else dict(CORS)
        status, body = 200, None
        try:
            body = self._body(request)
        except Refused as refused:
            status = refused.status
            body = {"error" if "no detail" in self.faults else "detail": refused.message}
            if status == 429 and "no retry-after" not in self.faults:
                headers["retry-after"] = "2"
            self.charged += "charges refusals" in self.faults
        kind = "text/plain" if "plain text" in self.faults else "application/json"
        content = json.dumps(body)
        if request.method == "GET" and "usage in HTML" in self.faults:
            content = "<html>"
        return httpx.Response(status, text=content, headers=headers | {"content-type": kind})

    def _body(self, request: httpx.Request) -> object:
        if request.method == "OPTIONS":
            return {}
        if request.url.path == "/usage":
            return {"data": [{"charged": self.charged}]}
        if request.url.path != "/v1/rerank":
            raise Refused(500 if "breaks on paths" in self.faults else 404, "no such path")
        if request.method != "POST":
            raise Refused(400 if "no 405" in self.faults else 405, "use POST")
        self._check_key(request.headers.get("authorization", "").removeprefix("Bearer "))
        if request.headers.get("content-encoding"):
            raise Refused(500 if "breaks on gzip" in self.faults else 415, "send plain JSON")
        fields = self._fields(request.content)
        if "accepts anything" not in self.faults:
            self._check(fields)
        return self._ranking(fields)

    def _check_key(self, key: str) -> None:
        if key not in {KEY, LIMITED_KEY} and "open" not in self.faults:
            raise Refused(401, "wrong key")
        if key == LIMITED_KEY and "no limit" not in self.faults:
            self.limited += 1
            if self.limited > 2:
                raise Refused(429, "too many requests")

    def _fields(self, content: bytes) -> dict[str, Any]:
        try:
            fields = json.loads(content)
            json.dumps(fields, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise Refused(500 if "breaks on JSON" in self.faults else 400, "bad JSON") from None
        if not isinstance(fields, dict):
            raise Refused(400, "an object is needed")
        return fields

    def _check(self, fields: Mapping[str, Any]) -> None:
        if not isinstance(fields.get("query"), str):
            raise Refused(422, "query: a text is needed")
        documents = fields.get("documents")
        if not isinstance(documents, list) or not 0 < len(documents) <= DOCUMENTS_MAX:
            raise Refused(400, "documents: a list is needed")
        if not all(isinstance(_text(each), str) for each in documents):
            raise Refused(400, "documents: texts are needed")
        top = fields.get("top_n")
        if top is not None and not (isinstance(top, int) and top > 0):
            raise Refused(400, "top_n: a positive number is needed")
        if fields.get("model") != MODEL and "any model" not in self.faults:
            raise Refused(404, "no such model")
        for name in OPTIONS:
            if name in fields and f"ignores {name}" not in self.faults:
                raise Refused(400, f"{name}: is not supported")

    def _ranking(self, fields: Mapping[str, Any]) -> dict[str, object]:
        query, documents = str(fields.get("query")), fields.get("documents")
        texts = [str(_text(each)) for each in documents] if isinstance(documents, list) else []
        scores = [self._score(query, text, len(texts)) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: -scores[index])
        if "unsorted" in self.faults:
            order.sort()
        if "a result too few" in self.faults:
            order.pop()
        top = fields.get("top_n")
        if isinstance(top, int) and "ignores top_n" not in self.faults:
            order = order[-top:] if "the worst" in self.faults else order[:top]
        self.charged += len(texts)
        back = fields.get("return_documents") or "always returns documents" in self.faults
        answer: dict[str, object] = {
            "model": MODEL,
            "results": [self._result(index, scores[index], texts, back) for index in order],
        }
        if "no usage" not in self.faults:
            answer["usage"] = {"total_tokens": self._tokens(query, texts, len(order))}
        return answer

    def _score(self, query: str, text: str, documents: int) -> float:
        wanted = set(query.lower().split()) - STOP_WORDS
        share = len(wanted & set(text.lower().replace(".", "").split())) / (len(wanted) + 1)
        if "reversed scores" in self.faults:
            share = 1 - share
        if "scores of a batch" in self.faults:
            share /= documents
        if "random scores" in self.faults:
            share = (share + self.requests / 7) % 1
        return share * 5 if "logits" in self.faults else share

    def _result(
        self, index: int, score: float, texts: list[str], back: object
    ) -> dict[str, object]:
        result: dict[str, object] = {"index": index, "relevance_score": score}
        if "string scores" in self.faults:
            result["relevance_score"] = str(score)
        if "NaN" in self.faults:
            result["relevance_score"] = float("nan")
        if back:
            text = texts[index]
            result["document"] = {"text": text.lower() if "changes texts" in self.faults else text}
        return result

    def _tokens(self, query: str, texts: list[str], results: int) -> int:
        size = len if "counts characters" in self.faults else _words
        if "counts results" in self.faults:
            texts = texts[:results]
        queries = 1 if "counts the query once" in self.faults else len(texts)
        return queries * size(query) + sum(map(size, texts))


def _text(document: object) -> object:
    return document.get("text") if isinstance(document, dict) else document


def _words(text: str) -> int:
    return len(text.split())
