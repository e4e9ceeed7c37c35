"""Parameter types for amounts and limits."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

import click

from serve_app.domain.formats import dollars
from serve_app.domain.model import LimitChanges, RateLimits, TenantSettings
from serve_app.domain.units import MICRO_DOLLARS_PER_DOLLAR, Credits
from serve_app.protocols.admin import GRANT_MAX, LIMIT_VALUE_MAX

NONE: Final = "none"
"""Removes a limit."""


class Dollars(click.ParamType[Credits]):
    """An amount of up to a million dollars, with a precision of one micro-dollar."""

    name = "dollars"

    def __init__(self, *, zero: bool = False, negative: bool = False) -> None:
        self._zero = zero
        self._negative = negative

    def convert(
        self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None
    ) -> Credits:
        amount = self._amount(str(value))
        most = GRANT_MAX // MICRO_DOLLARS_PER_DOLLAR
        if amount.copy_abs() > most:
            raise click.ClickException(f"'{value}' exceeds ${most:,}.")
        if amount != amount.quantize(Decimal("0.000001")):
            raise click.ClickException(f"'{value}' has more than 6 decimal places.")
        return Credits(int(amount * MICRO_DOLLARS_PER_DOLLAR))

    def _amount(self, typed: str) -> Decimal:
        try:
            amount = Decimal(typed)
        except InvalidOperation:
            raise click.ClickException(f"'{typed}' is not an amount of dollars.") from None
        if not amount.is_finite():
            raise click.ClickException(f"'{typed}' is not an amount of dollars.")
        if amount < 0 and not self._negative:
            raise click.ClickException(f"'{typed}' is negative.")
        if amount == 0 and not self._zero:
            raise click.ClickException(f"'{typed}' must not be zero.")
        return amount


class Count(click.ParamType[int]):
    """A non-negative integer."""

    name = "number"

    def convert(
        self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None
    ) -> int:
        typed = str(value)
        if not (typed.isascii() and typed.isdigit()) or len(typed) > 18:
            raise click.ClickException(f"'{typed}' is not a non-negative integer.")
        if int(typed) > LIMIT_VALUE_MAX:
            raise click.ClickException(f"'{typed}' exceeds {LIMIT_VALUE_MAX:,}.")
        return int(typed)


class OrNone(click.ParamType[Any]):
    """A value of another type, or ``none``."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self._of = of
        self.name = f"{of.name}|{NONE}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return NONE if value == NONE else self._of.convert(value, param, ctx)


@dataclass(frozen=True, slots=True)
class _Limit:
    title: str
    option: str
    kind: click.ParamType[Any] = field(default_factory=Count)


_LIMITS: dict[str, _Limit] = {
    "requests_per_minute_max": _Limit("Requests per minute", "--requests-per-minute"),
    "documents_per_minute_max": _Limit("Documents per minute", "--documents-per-minute"),
    "concurrent_requests_max": _Limit("Concurrent requests", "--concurrent-requests"),
    "monthly_budget_micro_dollars": _Limit(
        "Monthly budget", "--monthly-budget", Dollars(zero=True)
    ),
}


def limit_facts(limits: RateLimits) -> dict[str, str]:
    return {_LIMITS[name].title: _shown(name, value) for name, value in asdict(limits).items()}


def setting_facts(settings: TenantSettings) -> dict[str, str]:
    facts = asdict(settings).items()
    return {name.replace("_", " ").capitalize(): f"{value:,}" for name, value in facts}


def _shown(name: str, value: int | None) -> str:
    if value is None:
        return NONE
    return dollars(value) if isinstance(_LIMITS[name].kind, Dollars) else f"{value:,}"


def limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every limit, and pass those that are used as ``limits``."""

    @functools.wraps(command)
    def with_limits(**typed: Any) -> None:
        given = {name: typed.pop(name) for name in _LIMITS}
        changes = {
            name: None if value == NONE else value
            for name, value in given.items()
            if value is not None
        }
        command(limits=cast(LimitChanges, changes), **typed)

    options = with_limits
    for name, limit in reversed(_LIMITS.items()):
        options = click.option(
            limit.option, name, type=OrNone(limit.kind), help=f"'{NONE}' removes it."
        )(options)
    return options
