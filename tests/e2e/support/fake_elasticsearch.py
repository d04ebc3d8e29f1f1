"""Elasticsearch's bulk API, as strict as the real one about what we send: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk."""

import json
import re
from datetime import datetime

from support.http_fake import HttpFake, Refused

INDEX = re.compile(r"^[a-z0-9][a-z0-9._+-]{0,254}$")


def failed(kind, reason, status):
    return {"status": status, "error": {"type": kind, "reason": reason}}


class FakeElasticsearch(HttpFake):
    """documents by index and id. integers: fields that the mapping has as integers, nothing else goes in. item_faults: results to give instead to the documents to come, None for none."""

    def __init__(self, api_key=None, integers=(), data_streams=(), **options):
        super().__init__(**options)
        self.api_key, self.integers, self.data_streams = api_key, integers, set(data_streams)
        self.documents, self.item_faults = {}, []

    def answer(self, request):
        if self.api_key and request.headers.get("authorization") != "ApiKey " + self.api_key:
            raise Refused(401, json.dumps({"error": {"type": "security_exception", "reason": "missing authentication credentials"}, "status": 401}))
        if request.method != "POST" or request.path != "/_bulk":
            raise Refused(405, json.dumps({"error": f"Incorrect HTTP method for uri [{request.target}]"}))
        if request.headers.get("content-type") not in ("application/x-ndjson", "application/json"):
            raise Refused(406, json.dumps({"error": f"Content-Type header [{request.headers.get('content-type')}] is not supported"}))
        text = request.body().decode("utf-8")
        if not text.endswith("\n"):
            raise self.malformed("The bulk request must be terminated by a newline [\\n]")
        lines = text[:-1].split("\n")
        if len(lines) % 2:
            raise self.malformed("Malformed action/metadata line")
        results = [self.create(action, document) for action, document in zip(lines[::2], lines[1::2])]
        answer = {"errors": any("error" in result for result in results)}
        if answer["errors"]:
            answer["items"] = [{"create": result} for result in results]
        elif "filter_path" not in request.query:
            answer["items"] = [{"create": result} for result in results]
        return 200, json.dumps(answer)

    @staticmethod
    def malformed(reason):
        return Refused(400, json.dumps({"error": {"type": "illegal_argument_exception", "reason": reason}, "status": 400}))

    def create(self, action, text):
        try:
            action, document = json.loads(action), json.loads(text)
        except ValueError as error:
            raise self.malformed(f"Malformed action/metadata line: {error}") from None
        if list(action) != ["create"]:
            if action.get("index", {}).get("_index") in self.data_streams:
                return failed("illegal_argument_exception", "only write ops with an op_type of create are allowed in data streams", 400)
            raise self.malformed(f"expected create, got {list(action)}")
        index, name = action["create"].get("_index"), action["create"].get("_id")
        if not isinstance(index, str) or not INDEX.match(index):
            return failed("invalid_index_name_exception", f"Invalid index name [{index}]", 400)
        if name is not None and len(name.encode()) > 512:
            raise self.malformed(f"id [{name}] is too long, must be no longer than 512 bytes")
        if not isinstance(document, dict):
            return failed("document_parsing_exception", "object expected", 400)
        fault = self.item_faults.pop(0) if self.item_faults else None
        if fault:
            return fault
        return self.store(index, name, document)

    def store(self, index, name, document):
        if index in self.data_streams:
            try:
                datetime.fromisoformat(document.get("@timestamp", "").replace("Z", "+00:00"))
            except ValueError:
                return failed("document_parsing_exception", "data stream timestamp field [@timestamp] is missing", 400)
        for field in self.integers:
            if field in document and not isinstance(document[field], int):
                return failed("document_parsing_exception", f"failed to parse field [{field}] of type [integer]", 400)
        stored = self.documents.setdefault(index, {})
        if name in stored:
            return failed("version_conflict_engine_exception", f"[{name}]: version conflict, document already exists", 409)
        stored[name] = document
        return {"status": 201}
