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
import zlib

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
HARNESSES = ["request", "response", "chunked", "body", "tunnel", "admin", "redact", "content", "event", "event_read", "event_log", "letter", "json", "sse", "llm", "codec", "time", "redact_body"]
LARGEST = 20480  # bytes: larger ones only slow a fuzzer down
WORDS = {  # whose string literals are the dictionary
    "request": "src/http/*.c src/proxy/[afr]*.c", "response": "src/http/*.c", "body": "src/http/*.c",
    "admin": "src/http/*.c src/admin/*.c", "event_read": "src/pipeline/event_read.c", "tunnel": "src/net/tunnel.c", "redact": "src/proxy/redact.c", "time": "src/base/clock.c",
    "sse": "lua/llmproxy/sse.lua", "llm": "lua/llmproxy/llm/*.lua", "redact_body": "lua/llmproxy/redact/*.lua",
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
    yield "chunked", "extensions_too_large", b"".join(b"1;%s\r\nx\r\n" % (b"e" * 1000) for _ in range(17)) + b"0\r\n\r\n"
    yield "chunked", "extensions_just_right", b"".join(b"1;%s\r\nx\r\n" % (b"e" * 1000) for _ in range(16)) + b"0\r\n\r\n"


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


def request_seeds():
    """What is read of a head besides its framing: who asks, by which name, through whom."""
    heads = {
        "token": ["Authorization: Bearer token-of-a-client", "x-api-key: token-of-a-client", "Api-Key: another"],
        "bare_token": ["Authorization: token-of-a-client", "X-Goog-Api-Key: token-of-a-client"],
        "identified": ["X-Request-Id: client/7:a.b_c+d=e@f-0"],
        "identified_twice": ["X-Request-Id: a", "X-Request-Id: b"],
        "forwarded": ["X-Forwarded-For: 192.0.2.1, 10.0.0.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: front.test"],
        "forwarded_odd": ["X-Forwarded-For: [2001:db8::1]:443,unknown", "x-forwarded-for: ::ffff:192.0.2.2, 10.1.1.1:80"],
        "forwarded_inside": ["X-Forwarded-For: 10.0.0.1,10.0.0.2", "X-Forwarded-For: ::1"],
        "forwarded_empty": ["X-Forwarded-For: ", "X-Forwarded-For: 192.0.2.3,,"],
    }
    for name, lines in heads.items():
        yield "request", name, "\r\n".join(["GET /v1/a?b HTTP/1.1", "Host: a.test", *lines, "", ""]).encode()


def admin_seeds():
    for name, line, lines in (
        ("health", "HEAD /healthz HTTP/1.1", ["Host: 127.0.0.1:9080"]), ("ready", "GET /readyz HTTP/1.0", []), ("metrics", "GET /metrics HTTP/1.1", ["Host: Localhost"]),
        ("stats", "GET /stats HTTP/1.1", ["Host: [::1]:9080", "Authorization: Bearer token-of-admin"]), ("stats_refused", "GET /stats HTTP/1.1", ["Host: proxy.internal:1", "Authorization: bearer token"]),
        ("rebound", "GET /metrics HTTP/1.1", ["Host: evil.test"]), ("posted", "POST /stats HTTP/1.1", ["Host: localhost", "Content-Length: 1", "Authorization: Bearer token-of-admin"]),
        ("with_body", "GET /metrics HTTP/1.1", ["Host: ::1", "Transfer-Encoding: chunked"]), ("no_page", "OPTIONS * HTTP/1.1", ["Host: localhost", "Connection: close"]),
    ):
        yield "admin", name, "\r\n".join([line, *lines, "", ""]).encode()


def answer_seeds():
    answers = {
        "bare": "HTTP/1.1 200 OK\r\n\r\n",
        "old": "HTTP/1.0 200 Connection established\r\nProxy-agent: p/1\r\n\r\n",
        "no_phrase": "HTTP/1.1 299\r\nVia:1.1 p\r\nX:\ty\xe9\r\n\r\n",
        "refused": "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 5\r\n\r\nhello",
        "behind": "HTTP/1.1 200 OK\r\n\r\nX",
        "endless": "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 580,
        "too_large": "HTTP/1.1 200 OK\r\nX: ".ljust(16384, "y"),
        "junk": "SSH-2.0-x\r\n",
    }
    for name, text in answers.items():
        yield "tunnel", name, text.encode("latin-1")


def coded_seeds():
    """Of brotli and zstd no encoder is at hand here: a few bytes that were written once."""
    text = b"hello, hello, hello\n" * 3
    raw = zlib.compressobj(wbits=-15)
    coded = {
        "gzip": gzip.compress(text, mtime=0), "members": gzip.compress(b"a", mtime=0) + gzip.compress(b"b", mtime=0) + b"\0\0",
        "named": bytes.fromhex("1f8b081800000000000361006200") + raw.compress(text) + raw.flush() + struct.pack("<II", zlib.crc32(text), len(text)),
        "zlib": zlib.compress(text), "raw": zlib.compress(text)[2:-4], "stored": zlib.compress(text, 0), "bomb": gzip.compress(bytes(200000), mtime=0),
        "brotli": bytes.fromhex("620700bf91d2cd9b2841cad09a8d45e16de6314c3c95c008773cb0e3e9"), "brotli_stored": bytes.fromhex("0b028068656c6c6f03"),
        "zstd": bytes.fromhex("28b52ffd0058ad00004068656c6c6f2c200a0400373f800c6072575c3102"),
        "zstd_frames": bytes.fromhex("28b52ffd046845000010616201007b1c1620fe831528b52ffd045809000063ed5706c4"), "zlib_in_gzip": gzip.compress(zlib.compress(text), mtime=0),
    }
    for name, content in coded.items():
        yield "content", name, content
        if name.startswith(("gzip", "members", "zstd")):
            yield "codec", name, content
    for name, content in {"base64": b"aGVsbG8=", "base64url": b"-__-YQ", "base64_early": b"aGVsb", "hex": b"00fFa9", "url": b"a%20b%c3%A9+c"}.items():
        yield "codec", name, content


def text_seeds():
    for name, text in {
        "secrets": "key=1&a=2&API_KEY=3&x-amz-signature=4&mine=5&%6bey=6;b=7&k=key=8", "semicolons": "a;key=1;b&c;d=;token=2#key=3",
        "escapes": "ke%79=1&%6b%65%79=2&si%67=3&SI%47=4&tok%65n=5&tok%65=6&x%2damz%2D=7", "reference": "https://a.test/p;key=0?sig=1&b=2#access_token=3", "odd": "&&==&key&key=&=key&%=1&%4=2&k%65y%=3&KEY=%&;;", "nested": "u=/x?key=1&token=t?sig=s",
    }.items():
        yield "redact", name, text.encode()
    for name, text in {
        "rfc3339": "2026-01-02T03:04:05.678901Z", "offset": "1970-01-01t23:59:60.1234567-23:59", "leap": "2024-02-29 00:00:00+00:00", "last": "9999-12-31T23:59:59-23:59",
        "http": "Fri, 02 Jan 2026 03:04:05 GMT", "seconds": "120", "many": "9" * 400,
    }.items():
        yield "time", name, text.encode()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def segment_seeds():
    def head(version=1, first=1):
        start = b"LPLOG\0\0\0" + struct.pack("<IIQQ28x", version, 64, first, 1767323045678901)
        return start + struct.pack("<I", crc32c(start))

    def frame(sequence, payload):
        length, number = struct.pack("<I", len(payload)), struct.pack("<Q", sequence)
        return length + struct.pack("<I", crc32c(length + number + payload)) + number + payload

    frames = [frame(sequence, b"payload %d" % sequence * sequence) for sequence in range(1, 7)]
    whole = head() + b"".join(frames)
    hole = len(head()) + len(frames[0]) + 20
    segments = {
        "whole": whole, "torn": whole[:-3], "zeros": whole + bytes(200), "garbage": whole + b"\xff" * 50, "empty": head(), "nothing": b"", "short": head()[:40],
        "damaged": whole[:hole] + b"?" + whole[hole + 1:], "gap": head() + frames[0] + frames[2] + frames[5], "two_gaps": head() + frames[0] + bytes(40) + frames[2] + bytes(60) + frames[5],
        "header": b"?" + whole[1:], "version": head(version=2) + frames[0], "another": head(first=2) + frames[1], "again": head() + frames[0] * 3 + frames[1],
        "inside": head() + frame(1, frames[1] + frames[2])[:-1] + frames[3],
    }
    for name, content in segments.items():
        yield "event_log", name, content


def letter_seeds():
    head = b"".join([field(1, b"rejected"), field(2, b"answered 422"), field(3, b"webhook"), field(4, 7), field(5, 1767323045678901), field(6, 1767323045678902), field(9, b"of tomorrow")])
    for _, name, content in event_seeds():
        yield "letter", name, b"LPD1" + struct.pack("<I", 8 + len(head)) + head + content
    yield "letter", "bare", b"LPD1" + struct.pack("<I", 8) + event([field(16, b"i")])
    yield "letter", "name", b"audit%2F%c3%A9_-9"


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
    for make in http_seeds, request_seeds, admin_seeds, answer_seeds, coded_seeds, text_seeds, event_seeds, letter_seeds, segment_seeds, written_seeds:
        for harness, name, content in make():
            if len(content) <= LARGEST:
                (folder / harness / name).write_bytes(content)


main(pathlib.Path(sys.argv[1]))
