"""The replica with the fewest tokens is next, and equally loaded ones take turns."""

from serve_app.dispatch.replica_load import ReplicaLoad
from serve_app.domain.units import Tokens


def test_the_replica_with_the_fewest_tokens_has_the_lowest_rank() -> None:
    one, other = ReplicaLoad(), ReplicaLoad()
    one.add(Tokens(100), turn=1)
    other.add(Tokens(99), turn=2)

    assert other.rank < one.rank


def test_of_equally_loaded_replicas_the_one_that_was_not_used_lately_has_the_lowest_rank() -> None:
    one, other, unused = ReplicaLoad(), ReplicaLoad(), ReplicaLoad()
    other.add(Tokens(50), turn=1)
    one.add(Tokens(100), turn=2)
    one.remove(Tokens(100))
    other.remove(Tokens(50))

    assert unused.rank < other.rank < one.rank
