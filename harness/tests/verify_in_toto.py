"""Verifies a DSSE envelope with in-toto's own libraries: verify_in_toto.py ENVELOPE PUBLIC_PEM"""

import json
import sys

from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

envelope_file, key_file = sys.argv[1:]
with open(envelope_file, encoding="utf-8") as file:
    envelope = Envelope.from_dict(json.load(file))
with open(key_file, "rb") as file:
    key = SSlibKey.from_crypto(load_pem_public_key(file.read()), next(iter(envelope.signatures)))
envelope.verify([key], 1)
assert envelope.payload_type == "application/vnd.in-toto+json"

payload = json.loads(envelope.payload)
predicate = payload["predicate"]
statement = Statement.copy_from_pb(json_format.ParseDict(payload, statement_pb2.Statement()))
statement.validate()
# Extension fields are to be ignored by who does not know them.
result = json_format.ParseDict(predicate, test_result_pb2.TestResult(), ignore_unknown_fields=True)
print(result.result, len(result.passed_tests), "passed;", predicate["rave_skippedTests"], predicate["rave_standInTests"])
for subject in payload["subject"]:
    print(subject["name"], subject["digest"]["sha256"])
