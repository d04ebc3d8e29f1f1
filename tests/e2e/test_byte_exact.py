"""Whatever goes through, goes through as it is: random messages of every size, coding and framing, both ways, with plain and https upstreams, while everything is captured.

The seed is printed when the test fails; LLM_PROXY_SEED repeats it. LLM_PROXY_LONG_TESTS=1 makes many more rounds.
"""

import asyncio
import base64
import os
import random

import pytest

from support.exact import Plan, Reader, Upstream, EDGES, check_response, send_request
from support.proxy import SANITIZED

ROUNDS = 100 if os.environ.get("LLM_PROXY_LONG_TESTS") == "1" else 1
EXCHANGES = 150 if SANITIZED else 400
CLIENTS = 8
LARGEST = 50 << 20
KEPT = 128 << 10


def random_size(rng):
    kind = rng.random()
    if kind < 0.35:
        return rng.randrange(1024)
    if kind < 0.85:
        return rng.choice(EDGES)
    if kind < 0.97:
        return rng.randrange(300_000)
    return rng.randrange(3_000_000)


def make_connections(rng, pool):
    """Lists of plans; each list is what one connection carries."""
    connections, number = [], 0
    while number < EXCHANGES:
        client = rng.choice(["keep-alive", "keep-alive", "pipelined", "close", "1.0"])
        count = rng.randint(2, 12) if client in ("keep-alive", "pipelined") else 1
        connections.append([Plan(number + index, rng, pool, random_size(rng), random_size(rng), client) for index in range(count)])
        number += count
    for sizes in ((LARGEST, 10), (10, LARGEST)):
        connections.insert(rng.randrange(len(connections)), [Plan(number, rng, pool, *sizes, rng.choice(["keep-alive", "close", "1.0"]))])
        number += 1
    return connections


async def run_connection(plans, port):
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    reader = Reader(stream)
    closes = plans[0].client in ("close", "1.0")
    try:
        if plans[0].client == "pipelined":
            async def send_all():
                for plan in plans:
                    await send_request(plan, writer)

            sending = asyncio.create_task(send_all())
            for plan in plans:
                await check_response(plan, reader, False)
            await sending
        else:
            for plan in plans:
                sending = asyncio.create_task(send_request(plan, writer))
                await check_response(plan, reader, closes)
                await sending
    except (AssertionError, asyncio.IncompleteReadError, ConnectionError) as fault:
        raise AssertionError(f"{fault!r}; on a connection with {'; '.join(map(str, plans))}") from fault
    finally:
        writer.close()


async def run_round(connections, port, upstreams):
    """All connections, some at a time; nothing may be left over at the upstreams."""
    waiting = list(reversed(connections))

    async def client():
        while waiting and not any(upstream.faults for upstream in upstreams):
            await run_connection(waiting.pop(), port)

    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    try:
        await asyncio.wait_for(asyncio.gather(*clients), 900)
    except AssertionError as fault:
        raise AssertionError(f"{fault}; {[fault for upstream in upstreams for fault in upstream.faults]}") from fault
    finally:
        for task in clients:
            task.cancel()
    assert not [fault for upstream in upstreams for fault in upstream.faults]
    for plan in (plan for connection in connections for plan in connection):
        assert (plan.seen, plan.answered) == (1, 1), plan


def check_events(events, plans):
    assert len(events) == len(plans)
    for event in events:
        plan = plans[int(event["path"].split("/")[2])]
        request, response = plan.request.body, b"" if plan.bodiless else plan.response.body
        assert (event["method"], event["status"], event["error"]) == (plan.method, plan.status, None), plan
        assert (event["request_bytes"], event["response_bytes"]) == (len(request), len(response)), plan
        assert event["request_truncated"] == (len(request) > KEPT) and event["response_truncated"] == (len(response) > KEPT), plan
        for side, body, coding in (("request", request, plan.request.coding), ("response", response, plan.response.coding)):
            if coding is None and len(body) <= KEPT:
                text = event[f"{side}_body"] or ""
                kept = base64.b64decode(text) if event[f"{side}_body_encoding"] == "base64" else text.encode()
                assert kept == body, f"the event's {side} body of {plan}"


@pytest.fixture
def stage(start_proxy, authority):
    """start(plans) inside a loop: a proxy in front of two servers, the servers, and what they saw."""
    context = authority.server("server")

    async def start(plans):
        upstreams, servers = [], []
        for tls in (None, context):
            upstream = Upstream(plans)
            server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=tls, limit=1 << 18)
            upstream.port = server.sockets[0].getsockname()[1]
            upstreams.append(upstream)
            servers.append(server)
        proxy = await asyncio.to_thread(start_proxy, {
            "observability": {"max_request_body_bytes": KEPT, "max_response_body_bytes": KEPT},
            "routes": [{"prefix": "/plain", "upstream": f"http://127.0.0.1:{upstreams[0].port}"},
                       {"prefix": "/tls", "upstream": f"https://127.0.0.1:{upstreams[1].port}", "tls": {"ca_file": str(authority.ca_file)}}]})
        return proxy, upstreams, servers

    return start


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_byte_passes_both_ways(stage, number):
    seed = int(os.environ.get("LLM_PROXY_SEED", random.SystemRandom().randrange(1 << 32))) + number
    print(f"LLM_PROXY_SEED={seed} repeats this")
    rng = random.Random(seed)
    connections = make_connections(rng, rng.randbytes(4 << 20))
    plans = {plan.number: plan for connection in connections for plan in connection}

    async def run():
        proxy, upstreams, servers = await stage(plans)
        try:
            await run_round(connections, proxy.port, upstreams)
        finally:
            for server in servers:
                server.close()
        return proxy, upstreams

    proxy, upstreams = asyncio.run(run())
    assert sum(upstream.connections for upstream in upstreams) < len(plans), "connections are kept"
    check_events(proxy.wait_events(len(plans)), plans)
    proxy.events_file.unlink()  # large
