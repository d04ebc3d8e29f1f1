"""S3's PutObject, as strict as the real one: botocore, AWS's own library, computes what the signature must be; clocks, checksums, names and codings are looked at."""

import base64
import gzip
import hashlib
import re
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from urllib.parse import unquote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support.http_fake import HttpFake, Refused

AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})")
KEY_ID, SECRET = "AKIAEXAMPLE", "secret/with+signs="


def failed(status, code, message="", more="", headers=None):
    return Refused(status, f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}<RequestId>1</RequestId></Error>', headers)


class FakeS3(HttpFake):
    """objects by key. ahead: how far its clock is before ours, in seconds."""

    def __init__(self, bucket="events", region="us-east-1", token=None, most_bytes=None, **options):
        super().__init__(**options)
        self.bucket, self.region, self.token, self.most_bytes = bucket, region, token, most_bytes
        self.objects, self.puts, self.ahead = {}, [], 0

    def now(self):
        return datetime.now(timezone.utc) + timedelta(seconds=self.ahead)

    def answer(self, request):
        match = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if request.method != "PUT" or not match:
            raise failed(403, "AccessDenied", "Access Denied")
        key_id, date, region, signed, signature = match.groups()
        self.check_time(request, date)
        if region != self.region:
            raise failed(400, "AuthorizationHeaderMalformed", f"the region '{region}' is wrong; expecting '{self.region}'", f"<Region>{self.region}</Region>")
        if key_id != KEY_ID:
            raise failed(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
        if request.headers.get("x-amz-security-token") != self.token:
            raise failed(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
        if signature != self.signature(request, signed.split(";")):
            raise failed(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
        self.check_body(request)
        bucket, _, key = unquote(request.path)[1:].partition("/")
        if bucket != self.bucket:
            raise failed(404, "NoSuchBucket", "The specified bucket does not exist")
        self.objects[key] = request.raw
        self.puts.append(key)
        return 200, b""

    def check_time(self, request, date):
        moment = request.headers.get("x-amz-date", "")
        then = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        if moment[:8] != date or abs(then - self.now()) > timedelta(minutes=15):
            raise failed(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", headers={"Date": format_datetime(self.now(), usegmt=True)})

    def signature(self, request, names):
        """By botocore, of the headers that were signed; all that begin with x-amz- and host must be."""
        must = {name for name in request.headers if name.startswith("x-amz-")} | {"host", "content-type"}
        if names != sorted(names) or not must <= set(names):
            raise failed(403, "AccessDenied", "There were headers present in the request which were not signed")
        auth = S3SigV4Auth(Credentials(KEY_ID, SECRET, self.token), "s3", self.region)
        aws = AWSRequest("PUT", f"http://{request.headers['host']}{request.target}", {name: request.headers[name] for name in names}, request.raw)
        aws.context.update(timestamp=request.headers["x-amz-date"], payload_signing_enabled=True)
        return auth.signature(auth.string_to_sign(aws, auth.canonical_request(aws)), aws)

    def check_body(self, request):
        digest = hashlib.sha256(request.raw).digest()
        if request.headers.get("x-amz-content-sha256") != digest.hex():
            raise failed(400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
        checksum = request.headers.get("x-amz-checksum-sha256")
        if checksum is not None and checksum != base64.b64encode(digest).decode():
            raise failed(400, "BadDigest", "The SHA256 you specified did not match what we received.")
        if self.most_bytes and len(request.raw) > self.most_bytes:
            raise failed(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")

    def lines(self):
        """All lines of all objects."""
        return [line for key, body in sorted(self.objects.items()) for line in (gzip.decompress(body) if key.endswith(".gz") else body).decode().splitlines()]
