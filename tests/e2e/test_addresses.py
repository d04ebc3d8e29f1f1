"""Where it listens, and where it finds upstreams: IPv4, IPv6, unix sockets, several at once; a port in use is an error."""

import os
import socket
import stat

import pytest

from support.ports import free_port
from support.wire import Wire
from upstream import MockUpstream


def test_ipv6_upstream_and_listener(start_proxy):
    port = free_port("::1")
    with MockUpstream(host="::1") as mock:
        proxy = start_proxy({"listen": f"[::1]:{port}"}, upstream=mock)
        with Wire(("::1", port)) as wire:
            assert wire.exchange("GET", "/v1/models").status == 200
        assert mock.requests[0].get("host") == f"[::1]:{mock.port}"
        assert proxy.event()["client"].startswith("[::1]:")


def test_name_with_several_addresses(start_proxy, upstream):
    proxy = start_proxy({"routes": [{"prefix": "/", "upstream": f"http://localhost:{upstream.port}"}]})
    assert proxy.exchange("GET", "/v1/models").status == 200  # also where localhost is ::1 first and nobody is there
    assert upstream.requests[0].get("host") == f"localhost:{upstream.port}"
    proxy.event()


def test_unix_socket(start_proxy, tmp_path):
    path = str(tmp_path / "proxy.sock")
    proxy = start_proxy({"listen": f"unix:{path}"})
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with Wire(path) as wire:
        for _ in range(3):
            assert wire.exchange("GET", "/v1/models").status == 200
    assert len(proxy.wait_events(3)) == 3
    proxy.stop()
    assert not os.path.exists(path)


def test_stale_unix_socket_is_replaced_and_a_live_one_is_not(start_proxy, tmp_path):
    path = str(tmp_path / "proxy.sock")
    proxy = start_proxy({"listen": f"unix:{path}"})
    second = start_proxy({"listen": f"unix:{path}"}, wait=False)
    assert second.wait_exit() == 1 and path in second.stderr
    with Wire(path) as wire:
        assert wire.exchange("GET", "/v1/models").status == 200
    proxy.event()
    proxy.kill()
    assert os.path.exists(path)
    third = start_proxy({"listen": f"unix:{path}"})
    with Wire(path) as wire:
        assert wire.exchange("GET", "/v1/models").status == 200
    third.event()


def test_several_listeners(start_proxy, tmp_path):
    path, extra = str(tmp_path / "s"), free_port()
    port = free_port()
    proxy = start_proxy({"listen": [f"127.0.0.1:{port}", f"127.0.0.1:{extra}", f"unix:{path}"]})
    for address in (("127.0.0.1", port), ("127.0.0.1", extra), path):
        with Wire(address) as wire:
            assert wire.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(3)


def test_port_in_use(start_proxy, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        for setting in ("listen", "admin"):
            proxy = start_proxy({setting: address}, wait=False)
            assert proxy.wait_exit() == 1
            lines = [line for line in proxy.stderr.splitlines() if address in line]
            assert lines and "in use" in lines[-1].lower(), proxy.stderr


def test_a_second_instance_does_not_share_the_port(start_proxy):
    first = start_proxy()
    second = start_proxy({"listen": f"127.0.0.1:{first.port}"}, wait=False)
    assert second.wait_exit() == 1
    assert first.exchange("GET", "/v1/models").status == 200
    first.event()


@pytest.mark.parametrize("workers", [1, 4])
def test_all_workers_serve(start_proxy, workers):
    proxy = start_proxy({"workers": workers})
    for _ in range(40):
        assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.wait_events(40)


def test_port_0_is_said_in_the_log(start_proxy):
    proxy = start_proxy({"listen": "127.0.0.1:0"})
    words = proxy.stderr.replace("=", " ").split()
    ports = [int(word.rpartition(":")[2]) for word in words if word.startswith("127.0.0.1:") and word.rpartition(":")[2].isdigit()]
    served = [port for port in ports if port not in (proxy.admin_port, 0)]
    assert served, proxy.stderr
    with Wire(("127.0.0.1", served[0])) as wire:
        assert wire.exchange("GET", "/v1/models").status == 200
    proxy.event()


def test_listen_on_all_addresses_by_a_bare_port(start_proxy):
    port = free_port("0.0.0.0")
    proxy = start_proxy({"listen": f":{port}"})
    with Wire(("127.0.0.1", port)) as wire:
        assert wire.exchange("GET", "/v1/models").status == 200
    proxy.event()


def test_admin_off(start_proxy):
    proxy = start_proxy({"admin": False})
    assert proxy.exchange("GET", "/v1/models").status == 200
    proxy.event()
