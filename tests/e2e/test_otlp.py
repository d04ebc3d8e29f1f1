"""The dispatcher otlp against a collector that reads with protobuf's own reader."""

import json

import pytest

from support.fake_otlp import FakeOtlp, attributes
from support.waiting import wait_until

CHAT = {"model": "gpt-4o", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.2, "max_tokens": 256, "stop": ["x"], "n": 2,
        "messages": [{"role": "user", "content": "Grüße \u2028 \"x\"\n"}]}
TRACE, PARENT = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


def pipeline(*settings, **more):
    return {"observability": {"dead_letters": "dlq", "pipelines": [
        {"name": f"otel{number}", "transforms": ["llm"], "batch": {"max_events": 5, "max_wait": 0.05}, "retry": {"min_delay": 0.05, "max_delay": 0.2}, "dispatcher": {1: "otlp", **one}}
        for number, one in enumerate(settings)], **more}}


def settled(proxy, name="otel0", **outcomes):
    expected = {"delivered": 0, "filtered": 0, "dropped": 0, "dead_lettered": 0, "waiting": 0, **outcomes}
    wait_until(lambda: proxy.metrics().outcomes(name) == expected, lambda: f"{expected}, have {proxy.metrics().outcomes(name)}: {proxy.stderr}")


def chat(proxy, headers=()):
    return proxy.exchange("POST", "/v1/chat/completions", [("Content-Type", "application/json"), *headers], json.dumps(CHAT).encode())


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_spans_and_records(start_proxy, compression):
    with FakeOtlp(headers={"x-token": "secret-token"}) as collector:
        settings = {"endpoint": collector.url, "headers": {"X-Token": "secret-token"}, "content": True, "compression": compression}
        proxy = start_proxy(pipeline(settings, {**settings, "signal": "logs"}))
        chat(proxy, [("traceparent", f"00-{TRACE}-{PARENT}-01")])
        proxy.exchange("GET", "/v1/models")
        proxy.exchange("GET", "/nothing/there")
        settled(proxy, delivered=3)
        settled(proxy, "otel1", delivered=3)
        span = next(span for span in collector.spans() if span.trace_id == bytes.fromhex(TRACE))
        assert span.parent_span_id == bytes.fromhex(PARENT) and span.name == "chat gpt-4o" and span.kind == 3 and span.end_time_unix_nano >= span.start_time_unix_nano
        values = attributes(span)
        for name, value in {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.request.stream": True,
                            "gen_ai.request.temperature": 0.2, "gen_ai.request.max_tokens": 256, "gen_ai.request.choice.count": 2, "gen_ai.request.stop_sequences": ["x"],
                            "http.response.status_code": 200, "server.address": "127.0.0.1"}.items():
            assert values[name] == value, name
        assert values["gen_ai.usage.input_tokens"] > 0 and values["gen_ai.response.time_to_first_chunk"] > 0
        assert json.loads(values["gen_ai.input.messages"])[0]["parts"][0]["content"] == CHAT["messages"][0]["content"]
        record = next(record for record in collector.records() if record.trace_id == bytes.fromhex(TRACE))
        assert record.span_id == span.span_id and attributes(record)["gen_ai.input.messages"][0]["parts"] == [{"type": "text", "content": CHAT["messages"][0]["content"]}]
        others = [span for span in collector.spans() if span.trace_id != bytes.fromhex(TRACE)]
        assert [len(span.trace_id) for span in others] == [16, 16] and not any(span.parent_span_id for span in others)
        assert attributes(collector.exports["/v1/traces"][0].resource_spans[0].resource)["service.name"] == "llm-proxy"
        assert "secret-token" not in proxy.stderr


def test_the_environment_configures(start_proxy):
    with FakeOtlp(headers={"x-one": "a b", "x-two": "2"}) as collector, FakeOtlp() as logs:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url + "/", "OTEL_EXPORTER_OTLP_HEADERS": "x-one=a%20b, x-two=2", "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
               "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": logs.url + "/v1/logs", "OTEL_SERVICE_NAME": "edge", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test,team=a%2Cb",
               "OTEL_EXPORTER_OTLP_TIMEOUT": "5000"}
        proxy = start_proxy(pipeline({}, {"signal": "logs"}), env=env)
        chat(proxy)
        settled(proxy, delivered=1)
        settled(proxy, "otel1", delivered=1)
        resource = attributes(collector.exports["/v1/traces"][0].resource_spans[0].resource)
        assert (resource["service.name"], resource["deployment.environment"], resource["team"]) == ("edge", "test", "a,b")
        assert len(logs.records()) == 1 and "content-encoding" not in collector.requests[0].headers


def test_what_is_wrong_in_the_environment_is_said(start_proxy):
    proxy = start_proxy(pipeline({}), env={"OTEL_EXPORTER_OTLP_COMPRESSION": "zip", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, wait=False)
    assert proxy.wait_exit() == 2
    assert "dispatcher.compression: expected one of \"gzip\", \"none\", got \"zip\", did you mean 'gzip'? (from the environment's OTEL_EXPORTER_OTLP_COMPRESSION)" in proxy.stderr
    assert "(from the environment's OTEL_EXPORTER_OTLP_TIMEOUT)" in proxy.stderr


def test_answers(start_proxy):
    with FakeOtlp() as collector:
        proxy = start_proxy(pipeline({"endpoint": collector.url}))
        collector.faults[:] = [429, (503, {"Retry-After": "0"}, b""), 502, 504, 401]
        chat(proxy)
        settled(proxy, delivered=1)
        collector.partial = {"rejectedSpans": "1", "errorMessage": "span is too old"}
        chat(proxy)
        settled(proxy, delivered=2)
        assert proxy.metrics().value("llm_proxy_plugin_otlp_rejected_total", pipeline="otel0") == 1 and "span is too old" in proxy.stderr
        collector.partial, collector.faults[:] = None, [500]
        chat(proxy)
        settled(proxy, delivered=2, dead_lettered=1)
        judge = collector.answer
        collector.answer = lambda request: (413, "") if len(json.loads(request.body())["resourceSpans"][0]["scopeSpans"][0]["spans"]) > 1 else judge(request)
        for _ in range(4):
            chat(proxy)
        settled(proxy, delivered=6, dead_lettered=1)
