"""The official openai client works through the proxy as it does without it, and each call becomes one event that `llm` understands."""

import asyncio

import openai
import pytest

MESSAGES = [{"role": "user", "content": "Grüß Gott"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]
TEXT = "Grüße from the mock upstream"
USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18, "cached_input_tokens": 3, "reasoning_tokens": 2, "source": "provider"}


@pytest.fixture
def proxy(start_proxy, tmp_path):
    return start_proxy({"observability": {"pipelines": [
        {"name": "llm", "transforms": ["llm"], "dispatcher": {1: "file", "path": str(tmp_path / "proxy" / "events.jsonl")}}]}})


@pytest.fixture
def client(proxy):
    with openai.OpenAI(base_url=proxy.url + "/v1", api_key="sk-test-key", max_retries=0) as client:
        yield client


@pytest.fixture
def async_client(proxy):
    return lambda: openai.AsyncOpenAI(base_url=proxy.url + "/v1", api_key="sk-test-key", max_retries=0)


def has_all(part, whole):
    """Holds that the dict whole has what part has."""
    assert {key: whole.get(key) for key in part} == part


def test_chat_completion(client, proxy):
    answer = client.chat.completions.create(model="gpt-mock", messages=MESSAGES, temperature=0.7)
    assert answer.choices[0].message.content == TEXT
    event = proxy.event()
    has_all({"method": "POST", "path": "/v1/chat/completions", "status": 200, "streamed": False}, event)
    llm = event["llm"]
    has_all({"provider": "openai", "api": "chat", "request_model": "gpt-mock", "response_model": "gpt-mock-2026-01-01",
             "response_id": "chatcmpl-mock", "stream": False, "complete": True}, llm)
    assert llm["parameters"]["temperature"] == 0.7
    has_all({"index": 0, "role": "assistant", "content": TEXT, "finish_reason": "stop"}, llm["output"][0])
    has_all(USAGE, llm["usage"])


def test_streamed_chat_completion(client, proxy):
    stream = client.chat.completions.create(model="gpt-mock", messages=MESSAGES, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage.total_tokens == 18
    event = proxy.event()
    assert event["streamed"] is True and event["chunks"] >= 1
    has_all({"provider": "openai", "api": "chat", "stream": True, "complete": True}, event["llm"])
    has_all({"index": 0, "role": "assistant", "content": TEXT, "finish_reason": "stop"}, event["llm"]["output"][0])
    has_all(USAGE, event["llm"]["usage"])


def test_stream_without_usage_has_none(client, proxy):
    list(client.chat.completions.create(model="gpt-mock", messages=MESSAGES, stream=True))
    assert proxy.event()["llm"].get("usage") is None


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices(client, proxy, stream):
    answer = client.chat.completions.create(model="gpt-mock", messages=MESSAGES, n=3, stream=stream)
    if stream:
        list(answer)
    output = proxy.event()["llm"]["output"]
    assert [(choice["index"], choice["content"], choice["finish_reason"]) for choice in output] == [(index, TEXT, "stop") for index in range(3)]


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(client, proxy, stream):
    answer = client.chat.completions.create(model="gpt-mock", messages=MESSAGES, tools=TOOLS, stream=stream)
    if stream:
        arguments = "".join(call.function.arguments or "" for chunk in answer for choice in chunk.choices for call in choice.delta.tool_calls or [])
    else:
        arguments = answer.choices[0].message.tool_calls[0].function.arguments
    assert arguments == '{"city": "Zürich", "unit": "celsius"}'
    choice = proxy.event()["llm"]["output"][0]
    assert choice["tool_calls"] == [{"id": "call_mock_0", "name": "get_weather", "arguments": arguments}]
    assert choice["finish_reason"] == "tool_calls" and choice.get("content") is None


def test_stream_helper_accumulates(client, proxy):
    with client.chat.completions.stream(model="gpt-mock", messages=MESSAGES) as stream:
        assert stream.get_final_completion().choices[0].message.content == TEXT
    proxy.event()


def test_async_client(async_client, proxy):
    async def talk():
        async with async_client() as client:
            whole = await client.chat.completions.create(model="gpt-mock", messages=MESSAGES)
            stream = await client.chat.completions.create(model="gpt-mock", messages=MESSAGES, stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            return whole.choices[0].message.content, "".join(parts)

    assert asyncio.run(talk()) == (TEXT, TEXT)
    assert [event["llm"]["stream"] for event in proxy.wait_events(2)] == [False, True]


def test_many_streams_at_once(async_client, proxy):
    async def one(client, number):
        stream = await client.chat.completions.create(model=f"gpt-{number}", messages=MESSAGES, stream=True,
                                                      extra_headers={"x-mock-pieces": str(20 + number), "x-mock-pace": "0.005"})
        return number, "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def all_of_them():
        async with async_client() as client:
            return await asyncio.gather(*(one(client, number) for number in range(40)))

    seen = dict(asyncio.run(all_of_them()))
    events = proxy.wait_events(40)
    assert {event["llm"]["request_model"]: event["llm"]["output"][0]["content"] for event in events} == {f"gpt-{n}": text for n, text in seen.items()}
    assert all(event["llm"]["complete"] for event in events)


@pytest.mark.parametrize("status, error", [(400, openai.BadRequestError), (401, openai.AuthenticationError), (404, openai.NotFoundError),
                                           (429, openai.RateLimitError), (500, openai.InternalServerError), (503, openai.InternalServerError)])
def test_error_statuses(client, proxy, status, error):
    with pytest.raises(error) as caught:
        client.chat.completions.create(model="gpt-mock", messages=MESSAGES, extra_headers={"x-mock-status": str(status)})
    assert caught.value.status_code == status and f"mock error {status}" in str(caught.value)
    event = proxy.event()
    assert event["status"] == status and event["error"] is None  # an answer of the provider is no failure of the proxy
    assert event["llm"]["error"]["message"] == f"mock error {status}"


def test_retries_of_the_client_are_events_of_their_own(proxy):
    with openai.OpenAI(base_url=proxy.url + "/v1", api_key="sk-test-key", max_retries=2) as client, pytest.raises(openai.InternalServerError):
        client.models.list(extra_headers={"x-mock-status": "500", "x-mock-header": "retry-after-ms: 1"})
    events = proxy.wait_events(3)
    assert len({event["id"] for event in events}) == 3


def test_error_in_the_middle_of_a_stream(client, proxy):
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="gpt-mock", messages=MESSAGES, stream=True, extra_headers={"x-mock-error-event": "1"}))
    llm = proxy.event()["llm"]
    assert llm["error"]["message"] == "mock error 500" and llm["complete"] is False


def test_error_of_the_proxy_reads_as_an_api_error(start_proxy, tmp_path):
    proxy = start_proxy({"routes": [{"prefix": "/other/", "upstream": "http://127.0.0.1:9"}]})
    with openai.OpenAI(base_url=proxy.url + "/v1", api_key="sk-test-key", max_retries=0) as client, pytest.raises(openai.NotFoundError) as caught:
        client.models.list()
    assert caught.value.body["code"] == "no_route" and caught.value.body["type"] == "proxy_error"


def test_other_end_points(client, proxy):
    assert [model.id for model in client.models.list()] == ["mock"]
    assert len(client.embeddings.create(model="embed-mock", input=["a", "b"]).data) == 2
    assert client.responses.create(model="gpt-mock", input="hi").output_text == TEXT
    with client.responses.stream(model="gpt-mock", input="hi") as stream:
        assert stream.get_final_response().output_text == TEXT
    events = proxy.wait_events(4)
    assert [event["path"] for event in events] == ["/v1/models", "/v1/embeddings", "/v1/responses", "/v1/responses"]
    assert [event["streamed"] for event in events] == [False, False, False, True]


def test_upload_of_a_file(client, proxy, upstream):
    with pytest.raises(openai.NotFoundError):  # the mock knows no files; what matters is that the upload arrives
        client.files.create(file=("data.jsonl", b"x" * 300_000), purpose="batch")
    assert upstream.requests[-1].body_bytes > 300_000
    event = proxy.event()
    assert event["request_bytes"] == upstream.requests[-1].body_bytes
    assert event["request_headers"]["content-type"].startswith("multipart/form-data")
