"""The dispatcher elasticsearch against a cluster that refuses what the real one would."""

import json

import pytest

from support.fake_elasticsearch import FakeElasticsearch, failed
from support.lua import Lua
from support.waiting import wait_until

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Grüße \u2028 \"x\"\n"}]}).encode()


def pipeline(cluster, transforms=("llm",), **settings):
    return {"observability": {"dead_letters": "dlq", "pipelines": [
        {"name": "search", "transforms": list(transforms), "batch": {"max_events": 4, "max_wait": 0.05}, "retry": {"min_delay": 0.05, "max_delay": 0.2},
         "dispatcher": {1: "elasticsearch", "url": cluster.url, **settings}}]}}


def settled(proxy, **outcomes):
    expected = {"delivered": 0, "filtered": 0, "dropped": 0, "dead_lettered": 0, "waiting": 0, **outcomes}
    wait_until(lambda: proxy.metrics().outcomes("search") == expected, lambda: f"{expected}, have {proxy.metrics().outcomes('search')}: {proxy.stderr}")


@pytest.mark.parametrize("settings", [{}, {"gzip": False}])
def test_documents_are_the_events(start_proxy, settings):
    with FakeElasticsearch(api_key="key", integers=["status"], data_streams=["llm-stream"]) as cluster:
        proxy = start_proxy(pipeline(cluster, api_key="key", index="llm-stream", **settings))
        for _ in range(6):
            proxy.exchange("POST", "/v1/chat/completions", [("Content-Type", "application/json")], CHAT)
        settled(proxy, delivered=6)
        documents = cluster.documents["llm-stream"]
        assert len(documents) == 6
        for name, document in documents.items():
            assert document["id"] == name and document["@timestamp"] == document["time"] and json.loads(document["request_body"]) == json.loads(CHAT)
            assert document["llm"]["request_model"] == "gpt-4o"


def test_an_index_with_a_date(start_proxy):
    with FakeElasticsearch() as cluster:
        proxy = start_proxy(pipeline(cluster, index="llm-%Y.%m.%d"))
        proxy.exchange("GET", "/v1/models")
        settled(proxy, delivered=1)
        (index, documents), = cluster.documents.items()
        (document,) = documents.values()
        assert index == "llm-" + document["time"][:10].replace("-", ".")


def test_a_document_that_came_before_is_no_failure(start_proxy):
    """The answer to the first try is lost."""
    with FakeElasticsearch() as cluster:
        proxy = start_proxy(pipeline(cluster))
        store = cluster.answer

        def lose(request):
            cluster.answer = store
            store(request)
            return 503, ""

        cluster.answer = lose
        proxy.exchange("GET", "/v1/models")
        settled(proxy, delivered=1)
        assert len(cluster.documents["llm-events"]) == 1 and len(cluster.requests) == 2


def test_bad_documents_are_dead_letters_and_the_others_get_there(start_proxy):
    broken = "function(event) if event.query == 'bad' then event.status = 'no number' end return event end"
    with FakeElasticsearch(integers=["status"]) as cluster:
        proxy = start_proxy(pipeline(cluster, transforms=[Lua(broken)]))
        cluster.item_faults[:] = [None, failed("es_rejected_execution_exception", "rejected execution", 429), None]
        with proxy.wire() as wire:
            for query in ("a", "bad", "b", "c", "d", "bad", "e"):
                wire.exchange("GET", f"/v1/models?{query}")
        settled(proxy, delivered=5, dead_lettered=2)
        assert sorted(document["query"] for document in cluster.documents["llm-events"].values()) == ["a", "b", "c", "d", "e"]


def test_a_cluster_that_takes_nothing_gets_everything_later(start_proxy):
    with FakeElasticsearch(api_key="key") as cluster:
        proxy = start_proxy(pipeline(cluster, api_key="key"))
        html = b"<html>sign in</html>"
        cluster.faults[:] = [401, 403, 429, (503, {"Retry-After": "0"}, b""), (200, {}, html), (200, {}, b'{"took":1}'), 502]
        cluster.item_faults[:] = [failed("cluster_block_exception", "index [x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]", 403)]
        proxy.exchange("GET", "/v1/models")
        settled(proxy, delivered=1)
        assert "ApiKey" not in proxy.stderr


def test_a_batch_that_is_too_large_is_halved(start_proxy):
    with FakeElasticsearch() as cluster:
        judge = cluster.answer
        cluster.answer = lambda request: (413, "") if request.body().count(b"\n") > 2 else judge(request)
        proxy = start_proxy(pipeline(cluster, index="llm"))
        with proxy.wire() as wire:
            for number in range(8):
                wire.exchange("GET", f"/v1/models?{number}")
        settled(proxy, delivered=8)
        assert len(cluster.documents["llm"]) == 8
