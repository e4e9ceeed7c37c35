"""Checks and their results."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import httpx

from conformance.server import NotApplicable, NotRun, Server, Unmet

Run = Callable[[Server], None]


class Outcome(StrEnum):
    """The outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    name: str
    """The group, a dot, and a name in the group."""

    meaning: str
    """What the server does, as a sentence."""

    run: Run
    """Raises: Unmet, NotApplicable, NotRun, an error of httpx, or a ValueError."""

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one check."""

    name: str
    meaning: str
    outcome: Outcome
    expected: str = ""
    actual: str = ""
    reason: str = ""
    """Why the check is not applicable or was not run."""


def result_of(check: Check, server: Server) -> Result:
    """Run ``check``."""
    name, meaning = check.name, check.meaning
    try:
        check.run(server)
    except Unmet as unmet:
        return Result(name, meaning, Outcome.FAILED, unmet.expected, unmet.actual)
    except (httpx.HTTPError, ValueError) as error:  # A ValueError is about JSON.
        actual = f"{type(error).__name__}: {error}".rstrip(": ")
        return Result(name, meaning, Outcome.FAILED, "an answer, in JSON", actual)
    except NotApplicable as reason:
        return Result(name, meaning, Outcome.NOT_APPLICABLE, reason=str(reason))
    except NotRun as reason:
        return Result(name, meaning, Outcome.NOT_RUN, reason=str(reason))
    return Result(name, meaning, Outcome.PASSED)
