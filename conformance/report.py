"""The report of a run: a table, or JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conformance.check import Outcome, Result


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all checks of one run."""

    family: str
    date: str
    results: Sequence[Result]

    @property
    def passed(self) -> int:
        return len(self.of(Outcome.PASSED))

    @property
    def failed(self) -> int:
        return len(self.of(Outcome.FAILED))

    @property
    def summary(self) -> str:
        """Return the share of the checks that passed, of those that ran."""
        ran = self.passed + self.failed
        share = f" ({self.passed / ran:.1%})" if ran else ""
        return f"{self.family}: {self.passed} of {ran} checks passed{share}"

    def of(self, *outcomes: Outcome) -> list[Result]:
        return [result for result in self.results if result.outcome in outcomes]

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON's types, without empty fields."""
        results = [
            {name: value for name, value in asdict(result).items() if value}
            for result in self.results
        ]
        return {
            "family": self.family,
            "date": self.date,
            "passed": self.passed,
            "failed": self.failed,
            "results": results,
        }


def show(report: Report, console: Console) -> None:
    """Print the report."""
    table = Table("check", "outcome", "meaning")
    for each in report.of(Outcome.PASSED, Outcome.FAILED):
        style = "red" if each.outcome is Outcome.FAILED else "green"
        table.add_row(each.name, f"[{style}]{each.outcome}[/]", escape(each.meaning))
        if each.outcome is Outcome.FAILED:
            table.add_row("", "expected", escape(each.expected))
            table.add_row("", "actual", escape(each.actual))
    console.print(table)
    for outcome in (Outcome.NOT_APPLICABLE, Outcome.NOT_RUN):
        if found := report.of(outcome):
            console.print(f"{outcome.capitalize()}:")
            for each in found:
                console.print(f"  {each.name}: {escape(each.reason)}", highlight=False)
    console.print(report.summary, highlight=False)
