"""The CPU time of a container, out of what engines tell."""

import pytest

from autostart.errors import BusyUnknown, FailureCause
from autostart.runtime.compose.inspection import parse_cpu_seconds

CGROUP_V1 = {
    "read": "2026-01-31T12:00:00.123456789Z",
    "cpu_stats": {
        "cpu_usage": {
            "total_usage": 1_234_000_000,
            "percpu_usage": [1_000_000_000, 234_000_000],
            "usage_in_kernelmode": 230_000_000,
            "usage_in_usermode": 1_000_000_000,
        },
        "system_cpu_usage": 98_765_432_100_000,
        "online_cpus": 2,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    },
}
CGROUP_V2 = {
    "read": "2026-01-31T12:00:00.123456789Z",
    "cpu_stats": {
        "cpu_usage": {
            "total_usage": 1_234_000_000,
            "usage_in_kernelmode": 230_000_000,
            "usage_in_usermode": 1_004_000_000,
        },
        "system_cpu_usage": 98_765_432_100_000,
        "online_cpus": 2,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    },
}


@pytest.mark.parametrize("stats", [CGROUP_V1, CGROUP_V2], ids=["cgroup-v1", "cgroup-v2"])
def test_total_is_read_with_and_without_a_share_of_each_cpu(stats):
    assert parse_cpu_seconds(stats, "web") == 1.234


@pytest.mark.parametrize(
    "stats",
    [
        {},
        None,
        [],
        {"cpu_stats": None},
        {"cpu_stats": {}},
        {"cpu_stats": {"cpu_usage": None}},
        {"cpu_stats": {"cpu_usage": {}}},
        {"cpu_stats": {"cpu_usage": {"percpu_usage": [1, 2]}}},
        {"cpu_stats": {"cpu_usage": {"total_usage": None}}},
        {"cpu_stats": {"cpu_usage": {"total_usage": "12"}}},
        {"cpu_stats": {"cpu_usage": {"total_usage": True}}},
        {"cpu_stats": {"cpu_usage": {"total_usage": 0}}},
    ],
    ids=str,
)
def test_engine_that_tells_no_cpu_time_is_no_container_at_rest(stats):
    with pytest.raises(BusyUnknown) as caught:
        parse_cpu_seconds(stats, "web")
    assert str(caught.value) == "the engine does not tell the CPU time of the container web"
    assert caught.value.cause is FailureCause.BUSY_UNKNOWN
    assert "docker stats web" in caught.value.hint
