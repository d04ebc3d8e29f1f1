"""The official anthropic client works through the proxy as it does without it."""

import asyncio

import anthropic
import pytest

ASK = {"model": "claude-mock", "max_tokens": 64, "messages": [{"role": "user", "content": "Grüß Gott"}]}
TOOLS = [{"name": "get_weather", "description": "Weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
TEXT = "Grüße from the mock upstream"


@pytest.fixture
def proxy(start_proxy, upstream):
    return start_proxy({"routes": [{"name": "anthropic", "prefix": "/anthropic/", "upstream": upstream.url, "strip_prefix": True}]})


@pytest.fixture
def client(proxy):
    with anthropic.Anthropic(base_url=proxy.url + "/anthropic", api_key="sk-ant-test", max_retries=0) as client:
        yield client


def test_message(client, proxy, upstream):
    message = client.messages.create(**ASK)
    assert message.content[0].text == TEXT and message.stop_reason == "end_turn"
    assert upstream.requests[0].target == "/v1/messages"
    (name,) = (name.lower() for name, value in upstream.requests[0].headers if "sk-ant-test" in value)
    event = proxy.event()
    assert (event["path"], event["route"], event["status"]) == ("/anthropic/v1/messages", "anthropic", 200)
    assert event["request_headers"][name] == "[redacted]"
    assert event["credential"]["kind"] == name


def test_streamed_message(client, proxy):
    with client.messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == TEXT
        assert stream.get_final_message().usage.output_tokens == 7
    event = proxy.event()
    assert event["streamed"] is True
    assert event["response_body"].startswith("event: message_start") and "message_stop" in event["response_body"]


def test_raw_stream(client, proxy):
    kinds = [event.type for event in client.messages.create(**ASK, stream=True)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    proxy.event()


@pytest.mark.parametrize("stream", [False, True])
def test_tool_use(client, proxy, stream):
    if stream:
        with client.messages.stream(**ASK, tools=TOOLS) as running:
            message = running.get_final_message()
    else:
        message = client.messages.create(**ASK, tools=TOOLS)
    assert message.stop_reason == "tool_use"
    assert message.content[1].input == {"city": "Zürich", "unit": "celsius"}
    proxy.event()


def test_async_client(proxy):
    async def talk():
        async with anthropic.AsyncAnthropic(base_url=proxy.url + "/anthropic", api_key="sk-ant-test", max_retries=0) as client:
            whole = await client.messages.create(**ASK)
            async with client.messages.stream(**ASK) as stream:
                return whole.content[0].text, "".join([text async for text in stream.text_stream])

    assert asyncio.run(talk()) == (TEXT, TEXT)
    assert [event["streamed"] for event in proxy.wait_events(2)] == [False, True]


@pytest.mark.parametrize("status, error", [(400, anthropic.BadRequestError), (401, anthropic.AuthenticationError),
                                           (429, anthropic.RateLimitError), (500, anthropic.InternalServerError), (529, anthropic.InternalServerError)])
def test_error_statuses(client, proxy, status, error):
    with pytest.raises(error) as caught:
        client.messages.create(**ASK, extra_headers={"x-mock-status": str(status)})
    assert caught.value.status_code == status and f"mock error {status}" in str(caught.value)
    event = proxy.event()
    assert event["status"] == status and f"mock error {status}" in event["response_body"]


def test_error_event_in_a_stream(client, proxy):
    with pytest.raises(anthropic.APIStatusError), client.messages.stream(**ASK, extra_headers={"x-mock-error-event": "1"}) as stream:
        list(stream.text_stream)
    assert "overloaded_error" in proxy.event()["response_body"]
