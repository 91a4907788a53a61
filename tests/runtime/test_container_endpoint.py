"""Where a container is reached: its own address where this host is on its network, else a published port."""

import pytest

from autostart.runtime.base import Endpoint
from autostart.runtime.compose.containers import find_endpoint, parse_container

ELSEWHERE = {"IPAddress": "192.0.2.7", "Gateway": "192.0.2.1"}
IPV6_ONLY = {"IPAddress": "", "Gateway": "", "GlobalIPv6Address": "::1", "IPv6Gateway": "0:0:0:0:0:0:0:1"}


def endpoint(*networks: dict, published: list[tuple[str, str]]) -> Endpoint:
    """Where port 8001 leads, of a container with these networks; a loopback address counts as a bridge's."""
    raw = {
        "Id": "1", "Name": "/web", "Created": "", "Config": {}, "State": {"Status": "running", "ExitCode": 0},
        "NetworkSettings": {
            "Ports": {"8000/tcp": [{"HostIp": ip, "HostPort": port} for ip, port in published], "9/udp": None},
            "Networks": {str(number): network for number, network in enumerate(networks)},
        },
    }  # fmt: skip
    return find_endpoint([parse_container(raw)], 8001)


def test_an_ipv6_address_of_its_own_is_taken_where_there_is_no_other():
    assert endpoint(IPV6_ONLY, published=[("", "8001")]) == Endpoint("::1", 8000)


def test_an_ipv4_address_is_preferred():
    both = IPV6_ONLY | {"IPAddress": "127.0.0.1", "Gateway": "127.0.0.1"}
    assert endpoint(IPV6_ONLY, both, published=[("::", "8001")]) == Endpoint("127.0.0.1", 8000)


@pytest.mark.parametrize("network", [ELSEWHERE, IPV6_ONLY | {"IPv6Gateway": ""}], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("host_ips", "reached_at"),
    [
        ([""], "127.0.0.1"),
        (["0.0.0.0"], "127.0.0.1"),
        (["::", "0.0.0.0"], "127.0.0.1"),
        (["::1", "127.0.0.1"], "127.0.0.1"),
        (["::"], "::1"),
        (["::1"], "::1"),
        (["192.0.2.9"], "192.0.2.9"),
    ],
)
def test_a_published_port_is_reached_where_it_is_published(network, host_ips, reached_at):
    published = [("", "8002"), *((host_ip, "8001") for host_ip in host_ips)]
    assert endpoint(network, published=published) == Endpoint(reached_at, 8001, accepts_early=True)


def test_a_port_that_no_container_publishes_is_taken_for_the_hosts_own():
    assert endpoint(ELSEWHERE, published=[("", "8002")]) == Endpoint("127.0.0.1", 8001)
