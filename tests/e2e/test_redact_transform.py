"""The transform `redact` in the running proxy: the client gets every byte, events only what may be kept, and what cannot be searched does not go on."""

import json

import openai
import pytest

MAIL = "ann.lee@example.com"
MESSAGES = [{"role": "user", "content": f"Write to {MAIL}, card 4111 1111 1111 1111."}]
TEXT = "Grüße from the mock upstream"
REDACTED = "Grüße [redacted:phrase] upstream"
REDACT = {1: "redact", "patterns": ["email", "card", {"name": "phrase", "pattern": "from the m[a-z]+"}], "paths": ["request_body.user"]}


def pipeline(name, folder, *transforms):
    return {"name": name, "transforms": list(transforms), "dispatcher": {1: "file", "path": str(folder / f"{name}.jsonl")}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_is_redacted_before_and_after_llm(start_proxy, tmp_path, stream):
    proxy = start_proxy({"observability": {"pipelines": [
        pipeline("before", tmp_path, REDACT, "llm"), pipeline("after", tmp_path, "llm", REDACT), pipeline("decoded", tmp_path, "decode", REDACT)]}})
    with openai.OpenAI(base_url=proxy.url + "/v1", api_key="sk-test-key", max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-mock", messages=MESSAGES, user="u-1", stream=stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices) if stream else answer.choices[0].message.content
    assert text == TEXT
    for name in ("before", "after"):
        event, = proxy.wait_events(1, file=tmp_path / f"{name}.jsonl")
        request = json.loads(event["request_body"])
        assert request["messages"][0]["content"] == "Write to [redacted:email], card [redacted:card]."
        assert request["user"] == "[redacted]" and request["model"] == "gpt-mock"
        assert event["llm"]["output"][0]["content"] == REDACTED, name
        assert event["llm"]["complete"] is True
        if stream:
            assert event["response_body"].endswith("data: [DONE]\n\n")
    event, = proxy.wait_events(1, file=tmp_path / "decoded.jsonl")
    assert event["request_body"]["messages"][0]["content"] == "Write to [redacted:email], card [redacted:card]."
    documents = [item["data"] for item in event["response_body"] if isinstance(item["data"], dict)] if stream else [event["response_body"]]
    pieces = [choice.get("delta", choice.get("message", {})).get("content") or "" for document in documents for choice in document["choices"]]
    assert "".join(pieces) == REDACTED
    for name in ("before", "after", "decoded"):
        written = (tmp_path / f"{name}.jsonl").read_text()
        assert MAIL not in written and "4111" not in written


def test_what_cannot_be_searched_does_not_go_on(start_proxy, tmp_path):
    proxy = start_proxy({"observability": {"pipelines": [
        pipeline("closed", tmp_path, REDACT), pipeline("without", tmp_path, {**REDACT, "on_failure": "drop_bodies"})]}})
    for body, headers in ((MAIL.encode(), [("content-encoding", "x-unknown")]), (b'{"fine": true}', [])):
        proxy.exchange("POST", "/v1/models", [("content-type", "application/json"), *headers], body)
    fine, = proxy.wait_events(1, file=tmp_path / "closed.jsonl")
    assert fine["request_body"] == '{"fine": true}'
    dropped, kept = proxy.wait_events(2, file=tmp_path / "without.jsonl")
    assert dropped["request_body"] is None and dropped["response_body"] is None
    assert "content coding x-unknown" in dropped["redact_error"]
    assert kept["request_body"] == '{"fine": true}'
    proxy.stop()
    assert "request_body: it cannot be searched" in proxy.stderr
