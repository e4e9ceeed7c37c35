"""A replica's throughput and busy ratio, from its batches."""

import pytest

from serve_app.batching.throughput import ThroughputMeter
from serve_app.domain.units import Instant, Seconds, Tokens


def test_a_replica_tells_its_speed_and_how_busy_it_was() -> None:
    meter = ThroughputMeter(Instant(0))
    assert meter.tokens_per_s is None
    assert meter.busy_ratio(Instant(0)) == 0

    meter.ran(Tokens(4_000), Seconds(1))
    meter.ran(Tokens(4_000), Seconds(1))

    assert meter.tokens_per_s == pytest.approx(4_000)
    assert meter.busy_ratio(Instant(4)) == pytest.approx(0.5)
    assert meter.busy_ratio(Instant(5)) == 0


def test_small_batches_say_nothing_about_its_speed_and_new_ones_more_than_old() -> None:
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


def test_a_long_batch_tells_a_speed_that_fell_however_small_it_is() -> None:
    meter = ThroughputMeter(Instant(0))
    for _ in range(20):
        meter.ran(Tokens(30_000), Seconds(0.15))

    for _ in range(30):
        meter.ran(Tokens(8_000), Seconds(0.4))

    assert meter.tokens_per_s == pytest.approx(20_000, rel=0.15)


def test_a_batch_that_failed_keeps_busy_and_tells_no_speed() -> None:
    meter = ThroughputMeter(Instant(0))

    meter.ran(Tokens(0), Seconds(2))

    assert meter.tokens_per_s is None
    assert meter.busy_ratio(Instant(4)) == pytest.approx(0.5)
