"""The figures of the lab's faults are right, and each of its requests is unlike all others."""

from dataclasses import replace

import pytest

from docs.faults_page import TEXTS
from serve_app.domain.units import Moment
from tests.chaos.lab.fault import Places
from tests.chaos.lab.faults import BY_NAME, FAULTS
from tests.chaos.lab.load import Sent, texts
from tests.chaos.lab.report import Window, cost, percentile
from tests.chaos.traffic import NO_ANSWER, Exchange, Said

SAID = Said("id", 1, 4, 8)


def sent(
    at_s: float, total_s: float, first: str = "200", last: str = "200", host: str = "a"
) -> Sent:
    sent_at, ended_at = Moment(round(at_s * 1_000)), Moment(round((at_s + total_s) * 1_000))
    said = SAID if last == "200" else None
    exchange = Exchange("name", "key", 1, 4, sent_at, ended_at, last, said)
    return Sent(host, exchange, first, total_s, total_s)


def window(*, away: bool = False) -> Window:
    """A fault of host ``b`` at 10 s, which was over at 20 s."""
    times = Moment(0), Moment(10_000), Moment(20_000)
    return Window("a fault", "b", away, *times, full_capacity_s=7.0, shared=[])


def test_the_cost_counts_failed_and_repeated_requests() -> None:
    requests = [
        sent(1, 0.1),
        sent(11, 0.2),
        sent(12, 3.0, first="503 no_gateway"),
        sent(13, 90.0, first=NO_ANSWER, last=NO_ANSWER),
        sent(21, 60.0),
    ]

    found = cost(window(), requests)

    assert (found.sent, found.failed, found.repeated) == (3, 1, 2)
    assert found.first_outcomes == {"503 no_gateway": 1, NO_ANSWER: 1}
    assert (found.p99_before_s, found.p99_s, found.p99_added_s) == (0.1, 90.0, 89.9)
    assert found.slowest_s == 90.0


def test_a_request_from_before_the_fault_counts_if_it_was_still_running() -> None:
    assert cost(window(), [sent(9.5, 1.0)]).sent == 1
    assert cost(window(), [sent(9.5, 0.1)]).sent == 0


def test_a_request_from_before_the_quiet_time_belongs_to_the_fault_before() -> None:
    later = replace(window(), began_at=Moment(15_000), fault_at=Moment(18_000))
    later = replace(later, ended_at=Moment(30_000))

    assert cost(window(), [sent(12, 30.0)]).sent == 1
    assert cost(later, [sent(12, 30.0), sent(16, 30.0)]).sent == 1


def test_requests_through_the_host_itself_count_apart_if_it_was_away() -> None:
    requests = [sent(11, 0.1), sent(11, 0.1, first=NO_ANSWER, last=NO_ANSWER, host="b")]

    there, away = cost(window(), requests), cost(window(away=True), requests)

    assert (there.sent, there.failed, there.own_sent) == (2, 1, 0)
    assert (away.sent, away.failed) == (1, 0)
    assert (away.own_sent, away.own_failed, away.own_repeated) == (1, 1, 1)


@pytest.mark.parametrize(
    ("values", "share", "result"),
    [([], 0.99, 0.0), ([1.0], 0.99, 1.0), ([*range(1, 101)], 0.99, 99), ([1, 2, 3, 4], 0.5, 2)],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], share: float, result: float
) -> None:
    assert percentile(values, share) == result


def test_no_two_requests_have_the_same_documents_and_words() -> None:
    sizes = set()
    for number in range(2_000):
        documents = list(texts(number))
        sizes.add((len(documents), sum(len(each.split()) for each in documents)))
        assert all(len(each.split()) < 500 for each in documents)

    assert len(sizes) == 2_000


def test_deployments_with_two_replicas_on_a_node_are_found() -> None:
    places = Places.of(
        {
            "replicas": [
                {"id": "1", "address": "198.18.0.21", "deployment": "gateway"},
                {"id": "2", "address": "198.18.0.21", "deployment": "gateway"},
                {"id": "3", "address": "198.18.0.31", "deployment": "scorer-m"},
            ]
        }
    )

    assert places.shared() == ["gateway"]
    assert places.host_of("scorer").name == "gpu-1"
    assert places.lost_on(places.host_of("gateway")) == {"1", "2"}


def test_every_fault_is_explained_in_the_docs() -> None:
    assert list(TEXTS) == list(BY_NAME)


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
