"""A statement and its signatures as bytes: a DSSE envelope, read within strict limits.

What is read here is not verified yet. As DSSE asks, unknown fields are ignored, and both alphabets
of base64 are read.
"""

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.dsse import Envelope

from edits.errors import EnvelopeInvalid
from edits.manifests.canonical import canonical_json
from edits.manifests.document import dotted
from edits.manifests.statement import PAYLOAD_TYPE, RevisionStatement

MAX_BYTES = 64 * 1024
MAX_SIGNATURES = 64


class _Signature(BaseModel):
    model_config = ConfigDict(strict=True)

    keyid: Annotated[str, Field(min_length=1, max_length=128)]
    sig: Annotated[str, Field(min_length=1, max_length=256)]


class _Envelope(BaseModel):
    model_config = ConfigDict(strict=True)

    payload: str
    payload_type: Annotated[str, Field(alias="payloadType")]
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=MAX_SIGNATURES)]


def read_envelope(data: bytes) -> Envelope:
    """The envelope in `data`; nothing of it is verified.

    Raises EnvelopeInvalid when it is over the limits, is no envelope, has a key's signature twice,
    or says that it holds something else than a revision's statement.
    """
    if len(data) > MAX_BYTES:
        raise EnvelopeInvalid(f"the envelope has more than {MAX_BYTES} bytes; none is that long")
    try:
        document = json.loads(data, object_pairs_hook=_unique_pairs)
        parsed = _Envelope.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = dotted(first["loc"])
        raise EnvelopeInvalid(f"the envelope: {field}: {first['msg']}", param=field) from None
    except (ValueError, RecursionError) as error:
        raise EnvelopeInvalid(f"the envelope is not JSON: {error}") from None
    if parsed.payload_type != PAYLOAD_TYPE:
        raise EnvelopeInvalid(
            f"the envelope holds {parsed.payload_type!r:.80}, not {PAYLOAD_TYPE!r}; "
            "give the envelope of a revision",
            param="payloadType",
        )
    # DSSE would count them once; one of them is enough, and no signer of ours writes two.
    key_ids = [signature.keyid for signature in parsed.signatures]
    if repeated := next((each for each in key_ids if key_ids.count(each) > 1), None):
        raise EnvelopeInvalid(
            f"the envelope has two signatures of the key {repeated!r:.80}; keep one of them",
            param="signatures",
        )
    try:
        return Envelope.from_dict(parsed.model_dump(by_alias=True))
    except ValueError as error:
        raise EnvelopeInvalid(f"the envelope is not base64: {error}") from None


def write_envelope(envelope: Envelope) -> bytes:
    """The envelope as JSON: the same bytes for the same signatures, in whatever order they came.

    Raises EnvelopeInvalid when it has become larger than what is read.
    """
    document = envelope.to_dict()
    document["signatures"].sort(key=lambda signature: signature["keyid"])
    data = canonical_json(document)
    if len(document["signatures"]) > MAX_SIGNATURES or len(data) > MAX_BYTES:
        raise EnvelopeInvalid(
            f"an envelope holds at most {MAX_SIGNATURES} signatures; sign a new one"
        )
    return data


def unverified_statement(data: bytes) -> RevisionStatement:
    """What an envelope says, whoever signed it: to show or to sign too, never to act on.

    Raises EnvelopeInvalid, StatementInvalid.
    """
    return RevisionStatement.from_bytes(read_envelope(data).payload)


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return values
