"""The fair queue's guarantees, for thousands of random loads on a virtual clock."""

import random
from itertools import pairwise

import pytest

from serve_app.dispatch.fair_queue import FairQueue
from serve_app.dispatch.fair_share import FairShares
from serve_app.domain.model import ServiceTier
from serve_app.domain.priority import DEFAULT_TOKENS_AHEAD, FLEX_TOKENS_AHEAD
from serve_app.domain.units import RequestId
from tests.support.dispatch_simulation import (
    PORTION_TOKENS_MAX,
    TOKENS_PER_S,
    Fifo,
    Item,
    Job,
    Run,
    Simulation,
    a_claim,
    make_job,
    some_sizes,
)

SEEDS = range(20)
LOADS_PER_SEED = 50
PORTION_S = PORTION_TOKENS_MAX / TOKENS_PER_S
TIERS = list(ServiceTier)


def a_load(chance: random.Random, *, disconnects: bool = True) -> list[Job]:
    """Return jobs of a few tenants and every tier, from light load to heavy overload."""
    jobs = []
    window_s = chance.choice([0.1, 10, 200])
    for _ in range(chance.randint(1, 30)):
        claim = a_claim(
            chance.choice("abcd"), weight=chance.randint(1, 5), tier=chance.choice(TIERS)
        )
        arrives_s = chance.uniform(0, window_s)
        leaves = disconnects and chance.random() < 0.3
        disconnects_s = arrives_s + chance.uniform(0, 2 * window_s) if leaves else None
        jobs.append(make_job(claim, some_sizes(chance), arrives_s, disconnects_s))
    return jobs


def loads(seed: int, *, disconnects: bool = True) -> list[list[Job]]:
    chance = random.Random(seed)
    return [a_load(chance, disconnects=disconnects) for _ in range(LOADS_PER_SEED)]


def shares(runs: list[Run], until_s: float) -> dict[str, float]:
    """Return each tenant's share of the tokens that were started before ``until_s``."""
    tokens: dict[str, int] = {}
    for run in runs:
        if run.starts_s < until_s:
            tenant = run.item.job.partition("-")[0]
            tokens[tenant] = tokens.get(tenant, 0) + run.item.tokens
    total = sum(tokens.values())
    return {tenant: amount / total for tenant, amount in tokens.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_portion_leaves_once_in_its_jobs_order(seed: int) -> None:
    for jobs in loads(seed):
        queue: FairQueue[Item] = FairQueue()
        simulation = Simulation(queue, scorers=seed % 4 + 1)

        runs = simulation.run(jobs)

        left = [run.item for run in runs] + simulation.dropped
        came = [item for job in jobs for item in job.portions]
        assert len(left) == len(came)
        assert set(left) == set(came)
        for job in jobs:
            indices = [run.item.index for run in runs if run.item.job == job.id]
            assert indices == sorted(indices)
        assert (len(queue), queue.tokens, queue.take(), queue.peek()) == (0, 0, None, None)


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_and_peek_are_correct_after_every_step(seed: int) -> None:
    chance = random.Random(seed)
    queue: FairQueue[Item] = FairQueue()
    waiting: dict[RequestId, list[Item]] = {}
    for _ in range(1_000):
        match chance.random():
            case number if number < 0.3:
                job = a_load(chance)[0]
                queue.add(job.id, job.claim, job.portions)
                waiting[job.id] = list(job.portions)
            case number if number < 0.4 and waiting:
                job_id = chance.choice(list(waiting))
                assert queue.drop(job_id) == waiting.pop(job_id)
                assert queue.drop(job_id) == []
            case _:
                seen = queue.peek()
                taken = queue.take()
                assert taken is seen
                if taken is not None:
                    assert waiting[taken.job].pop(0) is taken
                    if not waiting[taken.job]:
                        del waiting[taken.job]
        items = [item for portions in waiting.values() for item in portions]
        assert len(queue) == len(items)
        assert queue.tokens == sum(item.tokens for item in items)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scorer_is_busy_exactly_when_it_would_be_first_come_first_served(seed: int) -> None:
    for jobs in loads(seed, disconnects=False):
        fair = Simulation(FairQueue()).run(jobs)
        fifo = Simulation(Fifo()).run(jobs)

        assert idle_gaps(fair) == pytest.approx(idle_gaps(fifo))


def idle_gaps(runs: list[Run]) -> list[float]:
    """Return the instants at which the only scorer became idle and busy again."""
    gaps = [
        instant
        for before, after in pairwise(runs)
        if after.starts_s > before.ends_s
        for instant in (before.ends_s, after.starts_s)
    ]
    return [*gaps, runs[-1].ends_s]


def test_similar_jobs_of_a_client_run_one_after_the_other() -> None:
    """Interleaving would make all of them late."""
    jobs = [make_job(a_claim(), [500, 500, 500], number * 1e-6) for number in range(100)]

    runs = Simulation(FairQueue(), scorers=1).run(jobs)

    assert [run.item.job for run in runs] == [job.id for job in jobs for _ in range(3)]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_weights_are_kept_while_all_tenants_wait(seed: int, tier: ServiceTier) -> None:
    chance = random.Random(seed)
    one = a_claim("one", weight=1, tier=tier)
    three = a_claim("three", weight=3, tier=tier)
    jobs = [
        make_job(claim, some_sizes(chance), chance.uniform(0, 1))
        for claim in (one, three)
        for _ in range(300)
    ]

    runs = Simulation(FairQueue(), scorers=2).run(jobs, until_s=200)

    assert shares(runs, 200)["one"] == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("one_at_once", "three_at_once"), [(1, 3), (1, 30), (3, 3), (30, 30)])
@pytest.mark.parametrize("seed", range(5))
def test_weights_hold_for_clients_in_a_closed_loop(
    seed: int, one_at_once: int, three_at_once: int
) -> None:
    """With few concurrent requests a tenant often has none queued, only some on the scorers."""
    chance = random.Random(seed)
    claims = {"one": a_claim("one", weight=1), "three": a_claim("three", weight=3)}

    def one_portion(tenant: str, now_s: float) -> Job:
        return make_job(claims[tenant], [chance.randint(1_000, PORTION_TOKENS_MAX)], now_s)

    simulation = Simulation(
        FairQueue(),
        answered=lambda job, now_s: one_portion(job.claim.tenant, now_s) if now_s < 500 else None,
    )

    runs = simulation.run(
        [one_portion("one", 0) for _ in range(one_at_once)]
        + [one_portion("three", 0) for _ in range(three_at_once)]
    )

    assert shares(runs, 500)["one"] == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_tenant_is_ahead_of_its_weight_by_more_than_a_portion(seed: int) -> None:
    chance = random.Random(seed)
    weights = {f"t{number}": chance.randint(1, 9) for number in range(chance.randint(2, 12))}
    jobs = [
        make_job(a_claim(tenant, weight=weight), some_sizes(chance))
        for tenant, weight in weights.items()
        for _ in range(50)
    ]
    queue: FairQueue[Item] = FairQueue()
    for job in jobs:
        queue.add(job.id, job.claim, job.portions)
    served = dict.fromkeys(weights, 0)
    waiting = dict.fromkeys(weights, 0)
    for job in jobs:
        waiting[job.claim.tenant] += len(job.portions)

    while all(waiting.values()):
        item = queue.take()
        assert item is not None
        tenant = item.job.partition("-")[0]
        served[tenant] += item.tokens
        waiting[tenant] -= 1
        levels = [served[name] / weights[name] for name in weights]
        slowest = min(weights.values())
        assert max(levels) - min(levels) <= PORTION_TOKENS_MAX / slowest


@pytest.mark.parametrize("scorers", [1, 4])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_flood_of_one_tenant_delays_another_by_a_portion_at_most(seed: int, scorers: int) -> None:
    chance = random.Random(seed)
    heavy = [
        make_job(a_claim("heavy", weight=chance.randint(1, 5)), some_sizes(chance))
        for _ in range(1_000)
    ]
    single = make_job(a_claim("single"), [chance.randint(20, PORTION_TOKENS_MAX)], 1 + seed / 3)

    runs = Simulation(FairQueue(), scorers).run([*heavy, single], until_s=20)

    starts_s = next(run.starts_s for run in runs if run.item.job == single.id)
    assert starts_s - single.arrives_s <= PORTION_S
    between = [run for run in runs if single.arrives_s < run.starts_s < starts_s]
    assert not between, "it waits only for the running portion"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_small_job_overtakes_large_ones_of_its_own_tenant(seed: int) -> None:
    chance = random.Random(seed)
    large = [make_job(a_claim(), [PORTION_TOKENS_MAX] * 100) for _ in range(3)]
    small = make_job(a_claim(), [300], chance.uniform(5, 50))

    runs = Simulation(FairQueue()).run([*large, small], until_s=60)

    starts_s = next(run.starts_s for run in runs if run.item.job == small.id)
    assert starts_s - small.arrives_s <= PORTION_S, "it waits only for the running portion"


def test_a_large_job_keeps_its_share_among_many_small_ones() -> None:
    large = make_job(a_claim(), [PORTION_TOKENS_MAX] * 50)
    small = [make_job(a_claim(), [1_024], number / 8) for number in range(4_000)]  # Twice capacity.

    runs = Simulation(FairQueue()).run([large, *small])

    ends_s = max(run.ends_s for run in runs if run.item.job == large.id)
    assert ends_s <= 2 * (50 + 1) * PORTION_S


@pytest.mark.parametrize("seed", SEEDS)
def test_the_longest_of_the_short_jobs_is_not_delayed_by_the_others(seed: int) -> None:
    """Four clients send a new job as soon as they are answered, in addition to long jobs."""
    chance = random.Random(seed)
    came: dict[RequestId, float] = {}

    def a_short_one(now_s: float) -> Job:
        job = make_job(a_claim(), [chance.randint(1_100, 2_200)], now_s)
        came[job.id] = now_s
        return job

    simulation = Simulation(
        FairQueue(),
        answered=lambda job, now_s: a_short_one(now_s) if job.id in came else None,
    )
    large = [make_job(a_claim(), [PORTION_TOKENS_MAX] * 100) for _ in range(3)]

    runs = simulation.run([*large, *(a_short_one(0) for _ in range(4))], until_s=300)

    waits_s = [run.starts_s - came[run.item.job] for run in runs if run.item.job in came]
    assert len(waits_s) > 200
    # Three other jobs, an equal share of long jobs, and the running portion.
    assert max(waits_s) <= 2 * 3 * 2_200 / TOKENS_PER_S + 2 * PORTION_S


@pytest.mark.parametrize(
    ("tier", "above", "tokens_ahead"),
    [
        (ServiceTier.DEFAULT, [ServiceTier.PRIORITY], DEFAULT_TOKENS_AHEAD),
        (ServiceTier.FLEX, [ServiceTier.DEFAULT], FLEX_TOKENS_AHEAD),
        (ServiceTier.FLEX, [ServiceTier.PRIORITY], FLEX_TOKENS_AHEAD),
        (ServiceTier.FLEX, [ServiceTier.PRIORITY, ServiceTier.DEFAULT], FLEX_TOKENS_AHEAD),
    ],
)
def test_a_lower_tier_gets_exactly_its_share_while_higher_tiers_are_overloaded(
    tier: ServiceTier, above: list[ServiceTier], tokens_ahead: int
) -> None:
    chance = random.Random(7)
    low = [make_job(a_claim("low", tier=tier), some_sizes(chance)) for _ in range(200)]
    high = [
        make_job(a_claim("high", tier=each), some_sizes(chance), number / 2)
        for each in above
        for number in range(800)
    ]

    runs = Simulation(FairQueue()).run([*low, *high], until_s=300)

    assert shares(runs, 300)["low"] == pytest.approx(1 / (1 + tokens_ahead), abs=0.01)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ServiceTier.PRIORITY, ServiceTier.DEFAULT),
        (ServiceTier.DEFAULT, ServiceTier.FLEX),
        (ServiceTier.PRIORITY, ServiceTier.FLEX),
    ],
)
def test_a_job_of_a_higher_tier_is_next(first: ServiceTier, second: ServiceTier) -> None:
    queue: FairQueue[Item] = FairQueue()
    low = make_job(a_claim("low", weight=9, tier=second), [100] * 5)
    high = make_job(a_claim("high", tier=first), [4_000])

    queue.add(low.id, low.claim, low.portions)
    queue.add(high.id, high.claim, high.portions)

    assert queue.take() == high.portions[0]


def test_idle_time_earns_no_credit() -> None:
    busy = [make_job(a_claim("busy"), [1_000] * 400) for _ in range(2)]
    rested = [make_job(a_claim("rested"), [1_000] * 400, 50) for _ in range(2)]

    runs = Simulation(FairQueue()).run([*busy, *rested], until_s=100)

    after = [run for run in runs if run.starts_s >= 50]
    assert shares(after, 100)["rested"] == pytest.approx(0.5, abs=0.01)


def test_moved_keys_do_not_accumulate_in_the_heap() -> None:
    turns: FairShares[str] = FairShares()
    turns.join("a")
    turns.join("b")
    for _ in range(1_000):
        turns.serve(turns.first(), 1.0)

    assert len(turns._waiting._heap) <= 2 * len(turns._waiting) + 17


def test_keys_that_left_are_forgotten() -> None:
    """Tenants that come and go leave no state behind."""
    queue: FairQueue[Item] = FairQueue()
    steady = make_job(a_claim("steady"), [100] * 10_000)
    queue.add(steady.id, steady.claim, steady.portions)
    for number in range(2_000):
        job = make_job(a_claim(f"t{number}"), [100])
        queue.add(job.id, job.claim, job.portions)
        queue.take()
        queue.take()

    tier = queue._tiers[ServiceTier.DEFAULT]
    turns = tier._shares
    assert len(tier._tenants) + len(turns._left) + len(turns._left._heap) < 10
    assert len(turns._waiting._heap) < 10
