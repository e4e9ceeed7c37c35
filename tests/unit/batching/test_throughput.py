"""A replica's throughput and busy ratio, from its batches."""

import pytest

from serve_app.batching.throughput import ThroughputMeter
from serve_app.domain.units import Instant, Seconds, Tokens


def test_a_replica_reports_its_throughput_and_busy_share() -> None:
    meter = ThroughputMeter(Instant(0))
    assert meter.tokens_per_s is None
    assert meter.busy_ratio(Instant(0)) == 0

    meter.ran(Tokens(4_000), Seconds(1))
    meter.ran(Tokens(4_000), Seconds(1))

    assert meter.tokens_per_s == pytest.approx(4_000)
    assert meter.busy_ratio(Instant(4)) == pytest.approx(0.5)
    assert meter.busy_ratio(Instant(5)) == 0


def test_small_batches_do_not_count_and_recent_ones_count_more() -> None:
    meter = ThroughputMeter(Instant(0))
    for _ in range(10):
        meter.ran(Tokens(8_000), Seconds(1))
        meter.ran(Tokens(50), Seconds(0.05))  # A thousand tokens a second.
    assert meter.tokens_per_s == pytest.approx(8_000)

    for _ in range(70):
        meter.ran(Tokens(2_000), Seconds(1))

    assert meter.tokens_per_s == pytest.approx(2_000, rel=0.05)


def test_the_first_large_batch_shows_how_fast_a_gpu_is_after_small_ones() -> None:
    meter = ThroughputMeter(Instant(0))
    for _ in range(200):
        meter.ran(Tokens(67), Seconds(0.007))

    meter.ran(Tokens(32_000), Seconds(0.05))

    assert meter.tokens_per_s == pytest.approx(640_000)


def test_a_long_batch_shows_a_lower_throughput_even_if_it_is_small() -> None:
    meter = ThroughputMeter(Instant(0))
    for _ in range(20):
        meter.ran(Tokens(30_000), Seconds(0.15))

    for _ in range(30):
        meter.ran(Tokens(8_000), Seconds(0.4))

    assert meter.tokens_per_s == pytest.approx(20_000, rel=0.15)


def test_a_failed_batch_counts_as_busy_but_not_for_throughput() -> None:
    meter = ThroughputMeter(Instant(0))

    meter.ran(Tokens(0), Seconds(2))

    assert meter.tokens_per_s is None
    assert meter.busy_ratio(Instant(4)) == pytest.approx(0.5)
