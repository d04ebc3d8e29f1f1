"""The dispatcher s3 against a service that checks signatures with AWS's own library."""

import json

import pytest

from support.fake_s3 import KEY_ID, SECRET, FakeS3, failed
from support.waiting import wait_until


def pipeline(service, **settings):
    given = {"bucket": "events", "endpoint": service.url, "access_key_id": KEY_ID, "secret_access_key": SECRET, **settings}
    return {"observability": {"dead_letters": "dlq", "pipelines": [
        {"name": "archive", "transforms": ["llm"], "concurrency": 1, "batch": {"max_events": 10, "max_wait": 0.2}, "retry": {"min_delay": 0.05, "max_delay": 0.2},
         "dispatcher": {1: "s3", **{key: value for key, value in given.items() if value is not None}}}]}}


def send(proxy, count):
    with proxy.wire() as wire:
        for number in range(count):
            assert wire.exchange("GET", f"/v1/models?{number}").status == 200


def settled(proxy, **outcomes):
    expected = {"delivered": 0, "filtered": 0, "dropped": 0, "dead_lettered": 0, "waiting": 0, **outcomes}
    wait_until(lambda: proxy.metrics().outcomes("archive") == expected, lambda: f"{expected}, have {proxy.metrics().outcomes('archive')}: {proxy.stderr}")
    assert SECRET not in proxy.stderr


def queries(service):
    return sorted(int(json.loads(line)["query"]) for line in service.lines())


@pytest.mark.parametrize("settings", [{}, {"gzip": False}, {"key": "ä b/%Y=%m/(x)/", "session_token": "token/+="}])
def test_objects_have_the_events(start_proxy, settings):
    with FakeS3(token=settings.get("session_token")) as service:
        proxy = start_proxy(pipeline(service, **settings))
        send(proxy, 25)
        settled(proxy, delivered=25)
        assert queries(service) == list(range(25))
        first = json.loads(service.lines()[0])
        prefix = settings.get("key", "llm-proxy/dt=%Y-%m-%d/hour=%H/").replace("%Y", first["time"][:4]).replace("%m", first["time"][5:7]).replace("%d", first["time"][8:10])
        prefix = prefix.replace("%H", first["time"][11:13])
        assert all(key.startswith(prefix) and key.endswith(".jsonl" if settings.get("gzip") is False else ".jsonl.gz") for key in service.objects)


def test_credentials_and_region_from_the_environment(start_proxy):
    with FakeS3(region="eu-central-1") as service:
        env = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL_S3": service.url}
        proxy = start_proxy(pipeline(service, endpoint=None, access_key_id=None, secret_access_key=None), env=env)
        send(proxy, 3)
        settled(proxy, delivered=3)


def test_an_answer_that_was_lost_makes_no_second_object(start_proxy):
    with FakeS3() as service:
        proxy = start_proxy(pipeline(service))
        put = service.answer

        def lose(request):
            service.answer = put
            put(request)
            return 503, b""

        service.answer = lose
        send(proxy, 5)
        settled(proxy, delivered=5)
        assert queries(service) == list(range(5)) and len(service.puts) > len(service.objects)


def test_wrong_clocks_regions_and_sizes(start_proxy):
    with FakeS3(region="eu-central-1", most_bytes=2000) as service:
        service.ahead = 3600
        proxy = start_proxy(pipeline(service, gzip=False))
        send(proxy, 8)
        wait_until(lambda: "the bucket is in region eu-central-1, not us-east-1" in proxy.stderr, lambda: proxy.stderr)
        service.region = "us-east-1"
        settled(proxy, delivered=8)
        assert queries(service) == list(range(8)) and all(len(body) <= 2000 for body in service.objects.values())


def test_what_fails_for_a_while_gets_there(start_proxy):
    with FakeS3() as service:
        def fault(*arguments, **more):
            refused = failed(*arguments, **more)
            return refused.status, refused.headers, refused.body

        service.faults[:] = [fault(503, "SlowDown"), fault(500, "InternalError"), fault(403, "AccessDenied"), fault(404, "NoSuchBucket"), 429, fault(400, "RequestTimeout")]
        proxy = start_proxy(pipeline(service))
        send(proxy, 4)
        settled(proxy, delivered=4)
        assert queries(service) == list(range(4))


def test_settings_that_cannot_work(start_proxy):
    with FakeS3() as service:
        proxy = start_proxy(pipeline(service, bucket="My_Bucket", key="%Q/", secret_access_key=None), wait=False)
        assert proxy.wait_exit() == 2
        assert "dispatcher.bucket: expected a bucket's name" in proxy.stderr and "dispatcher.secret_access_key: expected a string that is not empty, got nothing" in proxy.stderr
