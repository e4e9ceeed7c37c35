"""The options of a run, in addition to Locust's own."""

import argparse
import os
from pathlib import Path

from loadtests.lengths import MS_MARCO
from loadtests.plan import Plan, shares
from loadtests.shapes import SHAPES
from loadtests.thresholds import Thresholds

DEV_KEY_FILE = Path("var/dev.key")
DURATION_S = 60.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options to Locust's parser, or to another one."""
    _add_load(parser.add_argument_group("Load of the rerank API"))
    result = parser.add_argument_group("Result of the load test")
    result.add_argument("--summary", metavar="FILE", help="write the summary to this JSON file")
    result.add_argument("--records", metavar="FILE", help="write all requests to this .npz file")
    for name, figure in (
        ("--fail-p99-ms", "p99 of correct answers"),
        ("--fail-error-ratio", "share of failed requests"),
        ("--fail-refused-ratio", "share of refused requests"),
    ):
        result.add_argument(
            name, type=float, metavar="MAX", help=f"fail the run if the {figure} is above MAX"
        )


def _add_load(load: "argparse._ArgumentGroup") -> None:
    load.add_argument(
        "--rate", type=float, default=10.0, help="requests/s of all sizes (%(default)s)"
    )
    load.add_argument(
        "--sizes",
        default="5:4,50:3,500:1",
        help="documents per request, each with its weight among the requests (%(default)s)",
    )
    load.add_argument(
        "--pair-tokens",
        default=MS_MARCO,
        metavar="LENGTHS",
        help="tokens of a pair: one length, 'MEDIAN,P95' (%(default)s, as MS MARCO), or a file"
        " with one length per line",
    )
    load.add_argument(
        "--cv",
        type=float,
        default=1.0,
        help="coefficient of variation of the gaps between requests: 1 is a Poisson process, 3 has"
        " bursts, 0 has equal gaps (%(default)s)",
    )
    load.add_argument(
        "--shape", choices=list(SHAPES), default="constant", help="rate over time (%(default)s)"
    )
    load.add_argument(
        "--peak-factor",
        type=float,
        default=3.0,
        metavar="FACTOR",
        help="highest rate of the shape, as a multiple of --rate (%(default)s)",
    )
    load.add_argument("--trace", metavar="FILE", help="CSV file of requests to replay instead")
    load.add_argument("--tiers", help="service tiers with weights, such as default:8,flex:2")
    load.add_argument("--model", help="model in the requests; else the server's default")
    load.add_argument(
        "--warm-up-s", type=float, default=0.0, metavar="S", help="time that the figures leave out"
    )
    load.add_argument(
        "--seed", type=int, default=1, help="seed of the random requests (%(default)s)"
    )
    load.add_argument(
        "--request-timeout-s",
        type=float,
        default=60.0,
        metavar="S",
        help="time after which a request counts as failed (%(default)s)",
    )


def help_text(width: int) -> str:
    """Return the help of these options, which Locust's own help does not have."""
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=width),
    )
    add_options(parser)
    return parser.format_help()


def plan_of(options: argparse.Namespace) -> Plan:
    """Raises: ValueError: An option is invalid."""
    return Plan(
        rate_per_s=options.rate,
        sizes=shares(options.sizes),
        pair_tokens=options.pair_tokens,
        cv=options.cv,
        shape=options.shape,
        peak_factor=options.peak_factor,
        duration_s=float(options.run_time or DURATION_S),
        warm_up_s=options.warm_up_s,
        tiers=shares(options.tiers) if options.tiers else (),
        trace=Path(options.trace) if options.trace else None,
        seed=options.seed,
    )


def thresholds_of(options: argparse.Namespace) -> Thresholds:
    return Thresholds(options.fail_p99_ms, options.fail_error_ratio, options.fail_refused_ratio)


def api_keys() -> list[str]:
    """Return the keys in ``RERANK_API_KEY``, separated by commas, else the one in ``var/dev.key``.

    Raises: ValueError: There is no key.
    """
    if keys := os.environ.get("RERANK_API_KEY"):  # noqa: TID251 - a separate program
        return keys.split(",")
    if DEV_KEY_FILE.exists():
        return [DEV_KEY_FILE.read_text().strip()]
    raise ValueError(f"No API key: set RERANK_API_KEY, or run in the folder with {DEV_KEY_FILE}")
