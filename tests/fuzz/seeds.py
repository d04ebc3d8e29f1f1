#!/usr/bin/env python3
"""Makes the first inputs of the harnesses: seeds.py FOLDER fills FOLDER/NAME/ for each harness NAME, and FOLDER/NAME.dict.

FOLDER/vectors/ has all the vectors of tests/vectors/http as they are sent, for other tests.

The inputs come from these vectors, from the hand-written files of tests/fuzz/seeds/NAME/, and, for stored events, from the
format as it is described in src/event/event.h. A dictionary is the words of the code under test.
"""
import gzip
import json
import pathlib
import re
import struct
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
HARNESSES = ["request", "response", "chunked", "body", "event", "json", "sse", "llm"]
LARGEST = 16384  # bytes: larger ones only slow a fuzzer down
WORDS = {  # whose string literals are the dictionary
    "request": "src/http/*.c src/proxy/[afr]*.c", "response": "src/http/*.c", "body": "src/http/*.c",
    "sse": "lua/llmproxy/sse.lua", "llm": "lua/llmproxy/llm/*.lua",
}


def vectors(name):
    for vector in json.loads((ROOT / f"tests/vectors/http/hostile-{name}.json").read_text()):
        if vector["raw"] is not None:
            raw = re.sub(r"\{\{(.+?)\*(\d+)\}\}", lambda match: match[1] * int(match[2]), vector["raw"], flags=re.DOTALL)
            yield vector["name"], raw.encode("latin-1")


def http_seeds():
    for harness, name in ("request", "requests"), ("body", "requests"), ("response", "responses"), ("body", "responses"):
        for vector, raw in vectors(name):
            yield harness, f"{name}-{vector}" if harness == "body" else vector, raw
    for name in "requests", "responses":
        for vector, raw in vectors(name):
            head, _, body = raw.partition(b"\r\n\r\n")
            if body and b"transfer-encoding" in head.lower():
                yield "chunked", f"{name}-{vector}", body


def field(tag, value):
    value = value if isinstance(value, bytes) else struct.pack("<Q", value)
    return struct.pack("<HHI", tag, 0, len(value)) + value


def header(tag, name, value):
    return field(tag, struct.pack("<I", len(name)) + name + value)


def event(fields, request=b"", response=b"", tail=b""):
    flat = b"".join(fields)
    return b"LPE1" + struct.pack("<IQQQ", 32 + len(flat), len(request), len(response), len(tail)) + flat + request + response + tail


def event_seeds():
    texts = ["0199b8a2-1c00-7abc-8def-0123456789ab", "r", "POST", "/v1/caf\xe9", "a=b", "127.0.0.1:1", "me", "openai", "https://a", "bearer", "3f9a"]
    common = [field(16 + index, text.encode("latin-1")) for index, text in enumerate(texts)]
    common += [field(48, 1767323045678901), field(49, 1834567), field(50, 412001), field(51, 3), field(52, 9), field(53, 2), field(3, 200), field(4, 0)]
    headers = [header(1, b"Cookie", b"a=1"), header(1, b"cookie", b"b=\xe9"), header(2, b"X-Empty", b"")]
    yield "event", "smallest", event([field(16, b"i")])
    yield "event", "whole", event(common + headers + [field(5, 4 | 8 | 16)], b"{}\x00", "data: é\n\n".encode())
    yield "event", "cut", event(common + [field(5, 2 | 8 | 16)], b"", "schön".encode()[:4], "ön".encode()[1:])
    yield "event", "failed", event(common + [field(5, 16), field(27, b"upstream_timeout"), field(28, b"late"), field(63, b"from tomorrow")], b"", b"\xff\xfe")
    for coding in b"gzip", b"br, GZIP":
        yield "event", coding.decode()[:2], event(common + [header(2, b"Content-Encoding", coding), field(5, 16)], b"", gzip.compress(b"hello" * 50))
    yield "event", "kept_unsaid", event([field(16, b"i")], b"a", b"b")
    yield "event", "withheld", event(common + [field(4, 1) if part == field(4, 0) else part for part in headers])


def written_seeds():
    for path in sorted((HERE / "seeds").glob("*/*")):
        yield path.parent.name, path.name, path.read_bytes()


def words(patterns):
    found = {word for pattern in patterns.split() for path in ROOT.glob(pattern) for word in re.findall(r'"([A-Za-z0-9_./ :-]{2,30})"', path.read_text())}
    return "".join(f'"{word}"\n' for word in sorted(found))


def main(folder):
    for name in "requests", "responses":
        (folder / "vectors" / name).mkdir(parents=True, exist_ok=True)
        for vector, raw in vectors(name):
            (folder / "vectors" / name / vector).write_bytes(raw)
    for harness in HARNESSES:
        (folder / harness).mkdir(parents=True, exist_ok=True)
        if harness in WORDS:
            (folder / f"{harness}.dict").write_text(words(WORDS[harness]))
    for make in http_seeds, event_seeds, written_seeds:
        for harness, name, content in make():
            if len(content) <= LARGEST:
                (folder / harness / name).write_bytes(content)


main(pathlib.Path(sys.argv[1]))
