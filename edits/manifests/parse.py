"""A manifest body to a `ConceptEdit`, and a schema violation to one sentence about one field."""

import difflib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edits.errors import ManifestInvalid
from edits.manifests import policies
from edits.manifests.document import MAX_BYTES, dotted, read_document
from edits.manifests.schema import Accept, ConceptEdit, Metadata, Method, Spec

Value = TypeVar("Value")

_MODELS: dict[tuple[str | int, ...], type[BaseModel]] = {
    (): ConceptEdit,
    ("metadata",): Metadata,
    ("spec",): Spec,
    ("spec", "method"): Method,
    ("spec", "accept"): Accept,
}

# One sentence per way a field can be wrong; what is missing here keeps pydantic's own words.
_SENTENCES = {
    "missing": "is missing; add it",
    "string_type": "must be text, not {given}{quotes}",
    "int_type": "must be a whole number, not {given}",
    "int_from_float": "must be a whole number, not {given}",
    "float_type": "must be a number, not {given}",
    "bool_type": "must be true or false, not {given}",
    "tuple_type": "must be a list, not {given}",
    "model_type": "must be a mapping of fields, not {given}",
    "literal_error": "must be {expected}, not {given}",
    "greater_than": "must be greater than {gt:.10g}, not {given}",
    "greater_than_equal": "must be at least {ge:.10g}, not {given}",
    "less_than_equal": "must be at most {le:.10g}, not {given}",
    "too_long": "has {actual_length} entries; keep at most {max_length}",
    "value_error": "{error}",
}

_PATTERN_SENTENCES = {
    "name": "must be 1 to 63 lower-case letters, digits and inner hyphens, not {given}",
    "base": "must be 'sha256:' and 64 lower-case hexadecimal digits, not {given}",
}


def parse_manifest(body: bytes | str | Mapping[str, object]) -> ConceptEdit:
    """The concept edit that a YAML or JSON body, or a mapping, describes.

    Raises ManifestInvalid for anything else; `param` is the dotted path of the first bad field.
    """
    document = read_document(body)
    try:
        # JSON mode: arrays are the only lists, objects the only mappings, and nothing is coerced.
        return ConceptEdit.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise _refusal(error) from None


def load_manifest(path: Path | str) -> ConceptEdit:
    """The concept edit in a file. Raises ManifestInvalid naming the file, or OSError."""
    return _load(Path(path), parse_manifest)


def load_file(path: Path) -> ConceptEdit | dict[str, tuple[str, ...]]:
    """The concept edit, or the policies, in a file of a directory. Raises as `load_manifest`."""

    def parse(body: bytes) -> ConceptEdit | dict[str, tuple[str, ...]]:
        document = read_document(body)
        is_policies = document.get("kind") == policies.KIND
        return policies.read_policies(document) if is_policies else parse_manifest(document)

    return _load(path, parse)


def _load(file: Path, parse: Callable[[bytes], Value]) -> Value:
    with file.open("rb") as stream:
        body = stream.read(MAX_BYTES + 1)
    try:
        return parse(body)
    except ManifestInvalid as error:
        raise ManifestInvalid(f"{shown(file)}: {error.message}", param=error.param) from None


def shown(file: Path) -> str:
    """The file's name as text that can be printed and stored, whatever bytes it is made of."""
    return os.fsencode(file.name).decode("utf-8", "backslashreplace")


def _refusal(error: ValidationError) -> ManifestInvalid:
    problems = error.errors(include_url=False)
    # A misspelt field is both unknown and missing: the misspelling is what the author can act on.
    problem = min(problems, key=lambda found: found["type"] != "extra_forbidden")
    path = dotted(problem["loc"])
    sentence = (
        _unknown_field(problem["loc"])
        if problem["type"] == "extra_forbidden"
        else _sentence(problem)
    )
    return ManifestInvalid(f"{path}: {sentence}" if path else sentence, param=path)


def _unknown_field(location: tuple[str | int, ...]) -> str:
    name = str(location[-1])
    model = _MODELS[location[:-1]]
    known = sorted(field.alias or key for key, field in model.model_fields.items())
    close = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else "remove it. "
    return f"unknown field {name!r:.70}; {hint}Known fields here: {', '.join(known)}"


def _sentence(problem: ErrorDetails) -> str:
    given = problem["input"]
    details: dict[str, Any] = {
        **problem.get("ctx", {}),
        "given": _shown(given),
        "quotes": "; put it in quotes" if isinstance(given, int | float) else "",
    }
    if problem["type"] == "string_pattern_mismatch":
        return _PATTERN_SENTENCES[str(problem["loc"][-1])].format(**details)
    if sentence := _SENTENCES.get(problem["type"]):
        return sentence.format(**details)
    return problem["msg"]


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
