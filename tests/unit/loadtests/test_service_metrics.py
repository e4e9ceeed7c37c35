"""The service's metrics in the form of Ray's pages."""

import pytest

from loadtests.service_metrics import Sample, sample, stage_ms

HEAD = """\
# TYPE ray_serve_deployment_replica_healthy gauge
ray_serve_deployment_replica_healthy{application="rerank",deployment="gateway"} 2.0
ray_serve_deployment_replica_healthy{application="rerank-tiny",deployment="scorer"} 3.0
# TYPE ray_rerank_backlog_tokens gauge
ray_rerank_backlog_tokens{model="tiny",replica="a"} 100.0
ray_rerank_backlog_tokens{model="tiny",replica="b"} 20.0
"""
OTHER_NODE = """\
# TYPE ray_rerank_inflight_tokens gauge
ray_rerank_inflight_tokens{replica="c"} 3.0
# TYPE ray_rerank_stage_seconds histogram
ray_rerank_stage_seconds_bucket{stage="commit",le="+Inf"} 4.0
ray_rerank_stage_seconds_count{stage="commit"} 4.0
ray_rerank_stage_seconds_sum{stage="commit"} 0.2
ray_rerank_stage_seconds_sum{stage="score"} 0.8
"""


def test_a_sample_adds_the_pages_of_all_nodes() -> None:
    found = sample([HEAD, OTHER_NODE], at=7.0)

    assert found == Sample(7.0, 123, 2, 3, {"commit": 0.2, "score": 0.8}, 4)


def test_stage_times_are_means_of_the_requests_between_samples() -> None:
    first = Sample(1.0, stage_s={"score": 1.0}, charged=10)
    last = Sample(9.0, stage_s={"score": 3.0, "commit": 0.1}, charged=20)

    assert stage_ms([first, last]) == {"score": 200, "commit": 10}
    assert stage_ms([first]) == stage_ms([first, first]) == {}


def test_another_page_is_refused() -> None:
    with pytest.raises(ValueError, match=r"[Ii]nvalid|could not"):
        sample(["<html>no metrics</html>"], at=1.0)
