"""How amounts and limits are typed. What cannot be meant is refused in one line."""

import functools
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

import click

from serve_app.domain.model import LimitChanges
from serve_app.domain.units import MICRO_DOLLARS_PER_DOLLAR, Credits
from serve_app.protocols.admin import GRANT_MAX, LIMIT_VALUE_MAX

NONE: Final = "none"
"""What is typed to lift a limit."""


class Dollars(click.ParamType[Credits]):
    """An amount of dollars, to the micro-dollar, of a million at most."""

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
            raise click.ClickException(f"'{value}' is over ${most:,}.")
        if amount != amount.quantize(Decimal("0.000001")):
            raise click.ClickException(f"'{value}' has more than 6 decimals.")
        return Credits(int(amount * MICRO_DOLLARS_PER_DOLLAR))

    def _amount(self, typed: str) -> Decimal:
        try:
            amount = Decimal(typed)
        except InvalidOperation:
            raise click.ClickException(f"'{typed}' is not an amount of dollars.") from None
        if not amount.is_finite():
            raise click.ClickException(f"'{typed}' is not an amount of dollars.")
        if amount < 0 and not self._negative:
            raise click.ClickException(f"'{typed}' is below zero.")
        if amount == 0 and not self._zero:
            raise click.ClickException(f"'{typed}' must not be zero.")
        return amount


class Count(click.ParamType[int]):
    """A whole number from zero on."""

    name = "number"

    def convert(
        self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None
    ) -> int:
        typed = str(value)
        if not (typed.isascii() and typed.isdigit()) or len(typed) > 18:
            raise click.ClickException(f"'{typed}' is not a whole number from 0 on.")
        if int(typed) > LIMIT_VALUE_MAX:
            raise click.ClickException(f"'{typed}' is over {LIMIT_VALUE_MAX:,}.")
        return int(typed)


class OrNone(click.ParamType[Any]):
    """Another type's values, or the word ``none``, which stays as it is."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self._of = of
        self.name = f"{of.name}|{NONE}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return NONE if value == NONE else self._of.convert(value, param, ctx)


_LIMITS: tuple[tuple[str, str, click.ParamType[Any]], ...] = (
    ("requests_per_minute_max", "--requests-per-minute", Count()),
    ("documents_per_minute_max", "--documents-per-minute", Count()),
    ("requests_at_once_max", "--requests-at-once", Count()),
    ("month_amount_max", "--dollars-per-month", Dollars(zero=True)),
)


def limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options for every limit; the command gets those that were typed as ``limits``."""

    @functools.wraps(command)
    def with_limits(**typed: Any) -> None:
        given = {field: typed.pop(field) for field, _, _ in _LIMITS}
        changes = {
            field: None if value == NONE else value
            for field, value in given.items()
            if value is not None
        }
        command(limits=cast(LimitChanges, changes), **typed)

    options = with_limits
    for field, option, kind in reversed(_LIMITS):
        options = click.option(option, field, type=OrNone(kind), help=f"'{NONE}' lifts it.")(
            options
        )
    return options
