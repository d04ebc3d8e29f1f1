"""An OpenTelemetry collector's HTTP receiver for JSON, held to the letter of OTLP: what protobuf's own JSON reader takes, ids in hex, integers beyond 32 bits as text, enums as numbers, no unknown field, no empty list."""

import base64
import json
import re

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from support.http_fake import HttpFake, Refused

MESSAGES = {"/v1/traces": trace_service_pb2.ExportTraceServiceRequest, "/v1/logs": logs_service_pb2.ExportLogsServiceRequest}
IDS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}
INTEGERS = {"intValue", "startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "observedTimeUnixNano"}


def checked(value):
    """As protobuf's JSON has it: ids in base64 instead of hex. Raises what is no OTLP."""
    if isinstance(value, list):
        if not value:
            raise ValueError("an empty list")
        return [checked(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        if "_" in key:
            raise ValueError(f"{key}: keys are lowerCamelCase")
        if key in IDS:
            if not re.fullmatch(r"[0-9a-f]{%d}" % IDS[key], item) or not item.strip("0"):
                raise ValueError(f"{key}: {item!r} is no id in hex")
            item = base64.b64encode(bytes.fromhex(item)).decode()
        elif key in INTEGERS and not (isinstance(item, str) and re.fullmatch(r"-?\d+", item)):
            raise ValueError(f"{key}: {item!r} is no integer as text")
        elif key in ("kind", "code", "severityNumber") and not isinstance(item, int):
            raise ValueError(f"{key}: {item!r} is no number")
        result[key] = checked(item)
    return result


class FakeOtlp(HttpFake):
    """exports: the messages so far, as protobuf, by path. partial: what to answer as partialSuccess."""

    def __init__(self, headers=None, **options):
        super().__init__(**options)
        self.wanted, self.exports, self.partial = headers or {}, {path: [] for path in MESSAGES}, None

    def answer(self, request):
        if request.method != "POST" or request.path not in MESSAGES:
            raise Refused(404, "404 page not found")
        if request.headers.get("content-type") != "application/json":
            raise Refused(415, "unsupported media type")
        if any(request.headers.get(name) != value for name, value in self.wanted.items()):
            raise Refused(401, "unauthenticated")
        try:
            self.exports[request.path].append(json_format.Parse(json.dumps(checked(json.loads(request.body()))), MESSAGES[request.path]()))
        except (ValueError, json_format.ParseError) as error:
            raise Refused(400, json.dumps({"code": 3, "message": str(error)})) from None
        return 200, json.dumps({"partialSuccess": self.partial or {}})

    def spans(self):
        return [span for export in self.exports["/v1/traces"] for resource in export.resource_spans for scope in resource.scope_spans for span in scope.spans]

    def records(self):
        return [record for export in self.exports["/v1/logs"] for resource in export.resource_logs for scope in resource.scope_logs for record in scope.log_records]


def attributes(item):
    """By name, as Python has them."""
    return {entry.key: plain(entry.value) for entry in item.attributes}


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {entry.key: plain(entry.value) for entry in value.kvlist_value.values}
    return getattr(value, kind) if kind else None
