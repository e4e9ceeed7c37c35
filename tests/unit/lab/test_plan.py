import pytest

from cluster.lab import plan


def test_hosts_have_addresses_and_names_of_their_own() -> None:
    assert len({host.address for host in plan.HOSTS}) == len(plan.HOSTS)
    assert len(plan.BY_NAME) == len(plan.HOSTS)
    assert all(len(host.name) <= 15 for host in plan.HOSTS)  # The limit of interface names.


def test_the_cluster_has_a_head_without_replicas_cpu_nodes_and_gpu_nodes() -> None:
    head, *workers = (host for host in plan.hosts(plan.GPU_NODES) if host.is_node)

    assert head.name == plan.HEAD
    assert head.cpus == 0
    assert [host.gpus for host in workers] == [0, 0, 1, 1, 1]


def test_the_head_starts_a_cluster_and_other_nodes_join_it() -> None:
    head = plan.ray_start(plan.BY_NAME["head"])
    worker = plan.ray_start(plan.BY_NAME["cpu-1"])

    assert {"--head", "--num-cpus=0", "--node-ip-address=198.18.0.10"} <= set(head)
    assert {"--address=198.18.0.10:6379", "--node-ip-address=198.18.0.21"} <= set(worker)
    assert "--num-gpus=0" in worker


def test_a_gpu_node_declares_a_v100() -> None:
    options = set(plan.ray_start(plan.BY_NAME["gpu-3"]))

    assert "--num-gpus=1" in options
    assert '--resources={"accelerator_type:V100": 1}' in options
    assert "--labels=ray.io/accelerator-type=V100" in options


def test_a_host_without_ray_is_no_node() -> None:
    with pytest.raises(ValueError, match="database is not a node"):
        plan.ray_start(plan.BY_NAME["database"])


def test_a_cable_joins_the_bridge_and_the_host() -> None:
    assert plan.cable_script(plan.BY_NAME["gpu-1"], 4711) == [
        "link add gpu-1 type veth peer name eth0 address 02:00:00:00:00:1f netns 4711",
        "link set gpu-1 master switch",
        "link set gpu-1 up",
    ]
