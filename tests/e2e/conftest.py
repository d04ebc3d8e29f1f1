"""Fixtures: a mock upstream, and the real binary in front of it, each test with a folder, ports and a process of its own."""

import json

import jsonschema
import pytest

from support.certificates import Authority
from support.proxy import BINARY, ROOT, Proxy
from upstream import MockUpstream


def pytest_sessionstart(session):
    if not BINARY.exists():
        pytest.exit(f"{BINARY} is not there: build it first, or set LLM_PROXY_BINARY", returncode=3)


@pytest.fixture
def upstream():
    with MockUpstream() as mock:
        yield mock


@pytest.fixture
def start_proxy(tmp_path, upstream):
    """start_proxy(changes, …) starts the binary; see support/proxy.py. All are ended and checked after the test."""
    started = []

    def start(changes=None, **options):
        folder = tmp_path / f"proxy{len(started) or ''}"
        folder.mkdir()
        options.setdefault("upstream", upstream)
        proxy = Proxy(folder, changes, **options)
        started.append(proxy)
        return proxy

    yield start
    failures = []
    for proxy in started:
        try:
            proxy.finish()
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


@pytest.fixture
def proxy(start_proxy):
    """The proxy with everything as tests usually want it: one route "/" to the mock, events in a file."""
    return start_proxy()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "tests")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "somebody else")


@pytest.fixture
def tls_upstream(authority):
    with MockUpstream(tls=authority.server("server")) as mock:
        yield mock


@pytest.fixture(scope="session")
def event_schema():
    """Checks an event against the JSON Schema of the documentation."""
    schema = json.loads((ROOT / "docs/event.schema.json").read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    return validator(schema, format_checker=validator.FORMAT_CHECKER).validate
