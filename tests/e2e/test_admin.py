"""The admin listener: health, readiness, metrics, and no door for anybody else."""

import json
import re
import socket

import pytest

from support.proxy import get
from support.wire import Wire


def test_health_and_readiness(proxy):
    assert proxy.admin("/healthz")[0] == 200
    assert proxy.admin("/readyz")[0] == 200
    assert proxy.admin("/nothing")[0] == 404
    assert proxy.admin("/healthz", method="POST")[0] == 405
    assert proxy.admin("/healthz", method="HEAD")[2] == ""


def test_metrics_are_prometheus_text(proxy):
    proxy.exchange("GET", "/v1/models")
    proxy.exchange("GET", "/v1/models", [("x-mock-status", "429")])
    proxy.wait_events(2)
    status, headers, text = proxy.admin("/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "access-control-allow-origin" not in headers
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    assert len(families) == len(set(families))
    for name, kind in (("llm_proxy_requests_total", "counter"), ("llm_proxy_request_duration_seconds", "histogram"), ("llm_proxy_inflight_requests", "gauge"),
                       ("llm_proxy_events_received_total", "counter"), ("llm_proxy_events_total", "counter"), ("llm_proxy_events_waiting", "gauge"),
                       ("llm_proxy_bus_depth", "gauge"), ("llm_proxy_delivery_seconds", "histogram")):
        assert (name, kind) in families, name
    metrics = proxy.metrics()
    assert metrics.value("llm_proxy_requests_total", route="mock", code="200") == 1
    assert metrics.value("llm_proxy_requests_total", route="mock", code="429") == 1
    assert metrics.value("llm_proxy_request_duration_seconds_count") == 2
    assert metrics.value("llm_proxy_events_total", pipeline="events", result="delivered") == 2


def test_label_values_are_escaped(start_proxy, upstream):
    proxy = start_proxy({"routes": [{"name": 'odd "name"\\', "prefix": "/", "upstream": upstream.url}]})
    proxy.exchange("GET", "/v1/models")
    proxy.event()
    assert r'route="odd \"name\"\\"' in proxy.metrics().text


@pytest.mark.parametrize("host, status", [("127.0.0.1", 200), ("127.0.0.1:9080", 200), ("localhost", 200), ("localhost:1", 200), ("[::1]:80", 200), ("LOCALHOST", 200),
                                          ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example:80", 421)])
def test_host_is_checked_against_dns_rebinding(proxy, host, status):
    assert proxy.admin("/metrics", {"Host": host})[0] == status


def test_admin_hosts_setting(start_proxy):
    proxy = start_proxy({"admin_hosts": ["proxy.internal"]})
    assert proxy.admin("/metrics", {"Host": "proxy.internal:9080"})[0] == 200
    assert proxy.admin("/metrics", {"Host": "other.internal"})[0] == 421


def test_token_guards_everything_else(start_proxy):
    proxy = start_proxy(env={"ADMIN_TOKEN": "a-token"})
    for path in ("/healthz", "/readyz", "/metrics"):
        assert proxy.admin(path)[0] == 200
    assert proxy.admin("/stats")[0] == 401
    assert proxy.admin("/stats", {"Authorization": "Bearer wrong"})[0] == 401
    assert proxy.admin("/stats", {"Authorization": "Bearer a-token"})[0] == 200
    assert "a-token" not in proxy.stderr


def test_stats_tell_what_metrics_tell(proxy):
    proxy.exchange("GET", "/v1/models")
    proxy.exchange("GET", "/v1/models", [("x-mock-status", "429")])
    proxy.wait_events(2)
    status, headers, text = proxy.admin("/stats")
    assert status == 200 and headers["content-type"] == "application/json"
    stats = json.loads(text)
    assert stats["ready"] is True and stats["reason"] is None and stats["uptime_seconds"] > 0
    pipeline = stats["pipelines"]["events"]
    assert (pipeline["received"], pipeline["delivered"], pipeline["waiting"]) == (2, 2, 0)
    assert pipeline["dropped"] == 0 and set(pipeline["dropped_by"].values()) == {0} and "buffer_full" in pipeline["dropped_by"]
    assert stats["requests"]["mock"] == {"200": 1, "429": 1}
    assert stats["request_duration_seconds"]["count"] == 2


def test_broken_requests_do_no_harm(proxy):
    for junk in (b"\x16\x03\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n", b"GET /metrics HTTP/1.1\r\nHo"):
        with Wire(("127.0.0.1", proxy.admin_port)) as wire:
            wire.send(junk)
            wire.half_close()
            wire.is_closed()
    assert proxy.admin("/healthz")[0] == 200


def test_more_connections_than_it_takes(proxy):
    idle = [socket.create_connection(("127.0.0.1", proxy.admin_port)) for _ in range(100)]
    assert get(proxy.admin_port, "/healthz")[0] == 200
    for one in idle:
        one.close()


def test_keep_alive_and_pipelining(proxy):
    with Wire(("127.0.0.1", proxy.admin_port)) as wire:
        wire.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        assert [wire.response().status for _ in range(3)] == [200, 200, 200]
