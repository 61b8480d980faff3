"""Bytes of YAML or JSON to plain values, refusing what two readers could read differently.

Refused: duplicate keys, anchors, aliases and tags (no bombs, no objects), several documents,
numbers that are not finite, text that is not UTF-8, more than 256 KiB, more than 20 levels.
Scalars follow the YAML 1.2 core schema: `no` and `2026-01-01` are text, `1e-3` is a number.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping

import yaml

from edits.errors import ManifestInvalid

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
_MAX_DIGITS = 40  # longer numbers are no value of any field, and cost quadratic time to read

_Path = tuple[str | int, ...]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is in every wheel, 10x faster
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_document(body: bytes | str | Mapping[str, object]) -> dict[str, object]:
    """The mapping that `body` holds, made of dict, list, str, int, float, bool and None only.

    Raises ManifestInvalid; `param` is the dotted path of the first bad value where there is one.
    """
    plain = read_values(body)
    if not isinstance(plain, dict):
        raise ManifestInvalid(
            "a manifest is a mapping that starts with 'apiVersion: quickfix/v1'; "
            f"this document is {_kind(plain)}"
        )
    return plain


def read_values(body: bytes | str | Mapping[str, object]) -> object:
    """What `body` holds, a mapping or not, as `read_document` reads it. Raises ManifestInvalid."""
    value = body if isinstance(body, Mapping) else _parse(_text(body))
    return _plain(value, ())


def dotted(path: _Path) -> str | None:
    """`("spec", "aliases", 1)` as `spec.aliases.1`; None for the document itself."""
    return ".".join(str(part)[:64] for part in path) or None


def _text(body: bytes | str) -> str:
    try:
        data = body.encode() if isinstance(body, str) else body
        text = data.decode("utf-8-sig")
    except UnicodeError as error:
        raise ManifestInvalid(f"a manifest is UTF-8 text; this is not: {error}") from None
    if len(data) > MAX_BYTES:
        raise ManifestInvalid(
            f"the manifest has {len(data)} bytes; at most {MAX_BYTES} are read: shorten its lists"
        )
    return text


def _parse(text: str) -> object:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(
                text,
                object_pairs_hook=_unique_pairs,
                parse_constant=_refuse_constant,
                parse_int=lambda digits: _number(digits, ()),
                parse_float=lambda digits: _number(digits, ()),
            )
        except json.JSONDecodeError:
            pass  # a YAML flow mapping starts with a brace, too
        except RecursionError:
            raise _too_deep(()) from None
    try:
        return _YamlReader(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ManifestInvalid(f"not valid YAML or JSON: {error.problem}{where}") from None
    except yaml.YAMLError as error:
        reason = getattr(error, "reason", "unreadable")
        raise ManifestInvalid(f"not valid YAML or JSON: {reason}; save it as UTF-8 text") from None


class _YamlReader:
    """Builds the value from parser events, so that nothing is expanded before it is judged."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=_LOADER))

    def document(self) -> object:
        next(self._events)  # start of stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise ManifestInvalid("the manifest is empty; start it with 'apiVersion: quickfix/v1'")
        value = self._value(next(self._events), ())
        next(self._events)  # end of document
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise ManifestInvalid("the file holds several documents; write one manifest per file")
        return value

    def _value(self, event: yaml.Event, path: _Path) -> object:
        where = _line(event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ManifestInvalid(
                f"{where} uses a YAML anchor or alias; write the value out", param=dotted(path)
            )
        if tag := getattr(event, "tag", None):
            raise ManifestInvalid(
                f"{where} uses the YAML tag {tag!r:.60}; remove it", param=dotted(path)
            )
        if len(path) > MAX_DEPTH:
            raise _too_deep(path)
        if isinstance(event, yaml.ScalarEvent):
            is_plain, _ = event.implicit  # a quoted scalar is text, whatever it looks like
            return _scalar(event.value, path) if is_plain else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _sequence(self, path: _Path) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*path, len(values))))
        return values

    def _mapping(self, path: _Path) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise ManifestInvalid(
                    f"{_line(event)} uses a list, mapping or alias as a key; keys are plain words",
                    param=dotted(path),
                )
            key = str(event.value)
            if key in values:
                raise _duplicate(key, path)
            values[key] = self._value(next(self._events), (*path, key))
        return values


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else "the manifest"


def _scalar(text: str, path: _Path) -> object:
    """A plain scalar by the YAML 1.2 core schema, without octal and hexadecimal numbers."""
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if _FLOAT.fullmatch(text):
        return _number(text, path)
    return math.nan if _NOT_FINITE.fullmatch(text) else text


def _number(digits: str, path: _Path) -> int | float:
    if len(digits) > _MAX_DIGITS:
        raise ManifestInvalid(
            f"a number of {len(digits)} characters is out of range; shorten it", param=dotted(path)
        )
    return int(digits) if _INTEGER.fullmatch(digits) else float(digits)


def _plain(value: object, path: _Path) -> object:
    """A copy of `value` in plain types; refuses depth, non-finite numbers and foreign types."""
    if len(path) > MAX_DEPTH:
        raise _too_deep(path)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ManifestInvalid(
                    f"the key {key!r:.60} is not text; keys are plain words", param=dotted(path)
                )
            _refuse_unwritable(key, path)
        return {key: _plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ManifestInvalid(
            f"{dotted(path)}: is not a finite number; give a number", param=dotted(path)
        )
    if isinstance(value, str):
        _refuse_unwritable(value, path)
    if value is None or isinstance(value, str | int | float):
        return value
    raise ManifestInvalid(
        f"{dotted(path)}: a {type(value).__name__} is not a manifest value", param=dotted(path)
    )


def _refuse_unwritable(text: str, path: _Path) -> None:
    # Escapes can spell half a character, which no UTF-8 can hold, and a null character, which no
    # PostgreSQL can.
    if "\0" in text:
        raise ManifestInvalid(
            f"{dotted(path) or 'a key'}: contains a null character; take it out",
            param=dotted(path),
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ManifestInvalid(
            f"{dotted(path) or 'a key'}: contains half a character (an unpaired surrogate); "
            "write the whole character",
            param=dotted(path),
        )


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise _duplicate(key, ())
        values[key] = value
    return values


def _refuse_constant(name: str) -> float:
    raise ManifestInvalid(f"{name} is not a finite number; give a number")


def _duplicate(key: str, path: _Path) -> ManifestInvalid:
    full = dotted((*path, key))
    return ManifestInvalid(f"{full}: the key stands twice; keep one of them", param=full)


def _too_deep(path: _Path) -> ManifestInvalid:
    return ManifestInvalid(
        f"the manifest nests deeper than {MAX_DEPTH} levels; no field needs that",
        param=dotted(path[:4]),
    )


def _kind(value: object) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"
