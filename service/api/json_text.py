"""JSON bodies to plain values, refusing what two readers could read differently.

Refused: more than 32 levels (before the parser sees them), keys that stand twice, numbers that are
not finite or longer than any field takes, null characters, text that is not UTF-8.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from service.errors import RequestInvalid

__all__ = ["MAX_DEPTH", "JsonRequest", "read_json"]

MAX_DEPTH = 32
_MAX_DIGITS = 40  # a longer number is no value of any field, and costs quadratic time to read

_NOT_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_BRACKETS = bytes.maketrans(b"{}", b"[]")


def read_json(data: bytes) -> Any:
    """The value that a body holds. Raises RequestInvalid, with a message that repeats nothing."""
    unescaped = data.replace(b"\\\\", b"")
    _refuse_depth(unescaped)
    if b"\\u0000" in unescaped:  # which PostgreSQL cannot store
        raise RequestInvalid("the body is refused: a null character stands in a text")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_number(int),
            parse_float=_number(float),
        )
    except UnicodeDecodeError:
        raise RequestInvalid("the body is not JSON: it is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RequestInvalid(f"the body is not JSON: {error.msg} at {where}") from None


class JsonRequest(Request):
    """A request whose body FastAPI reads by `read_json`."""

    async def json(self) -> Any:
        """The body's value. Raises HTTPException, the one error that FastAPI lets through."""
        try:
            return read_json(await self.body())
        except RequestInvalid as refused:
            raise HTTPException(400, refused.message) from None


def _refuse_depth(unescaped: bytes) -> None:
    """Raise RequestInvalid for more than MAX_DEPTH open brackets at once.

    `unescaped` has no escaped backslash, so that a backslash escapes what follows it. Brackets
    inside of strings do not count. Each round takes the innermost pairs away, all in C:
    a mebibyte of brackets costs milliseconds, where a loop over bytes would hold up every client.
    """
    marks = unescaped.replace(b'\\"', b"").translate(None, _NOT_BRACKETS)
    brackets = b"".join(marks.split(b'"')[::2]).translate(_BRACKETS)
    for depth in range(MAX_DEPTH + 1):
        if depth + brackets.count(b"[") <= MAX_DEPTH:
            return
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"")
        if len(brackets) == before:
            break
    raise RequestInvalid(f"the body nests deeper than {MAX_DEPTH} levels; no field needs that")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A gateway that looks at the first one and a service that takes the last see two prompts.
    values = dict(pairs)
    if len(values) < len(pairs):
        raise RequestInvalid("the body is refused: a key stands twice in one object")
    return values


def _refuse_constant(name: str) -> float:
    raise RequestInvalid(f"the body is not JSON: {name} is no number of it")


def _number(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(digits: str) -> float:
        value = kind(digits) if len(digits) <= _MAX_DIGITS else math.inf
        if not math.isfinite(value):
            raise RequestInvalid("the body is refused: a number is out of range")
        return value

    return read
