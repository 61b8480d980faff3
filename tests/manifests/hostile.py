"""Bodies that are no manifest: wrong types, numbers, depth, bombs, paths, binaries, noise."""

import copy
import gzip
import json
import pickle
import struct

from hypothesis import strategies as st

VALID = {
    "apiVersion": "quickfix/v1",
    "kind": "ConceptEdit",
    "metadata": {"name": "remove-pistol", "version": 1, "owner": "a", "reason": "b"},
    "spec": {
        "concept": "pistol",
        "aliases": ["gun"],
        "anchor": "toy",
        "type": "object",
        "preserve": ["knife"],
        "method": {"sites": "quickfix", "tokens": "last", "ridge": 30.0, "pad_weight": 1.0},
        "accept": {"max_target_rate": 0.05, "max_drop": 0.03},
    },
}
# Where a value of any other type, or a value that is no number, can be no manifest.
PATHS = [
    ("apiVersion",),
    ("kind",),
    ("metadata",),
    ("metadata", "name"),
    ("metadata", "version"),
    ("spec",),
    ("spec", "type"),
    ("spec", "method"),
    ("spec", "method", "tokens"),
    ("spec", "method", "ridge"),
    ("spec", "accept"),
    ("spec", "accept", "max_drop"),
]
NUMBERS = [
    ("metadata", "version"),
    ("spec", "method", "ridge"),
    ("spec", "method", "preserve_weight"),
    ("spec", "method", "pad_weight"),
    ("spec", "accept", "max_target_rate"),
    ("spec", "accept", "max_drop"),
]
NAMES = [("metadata", "name"), ("spec", "type"), ("spec", "base"), ("spec", "method", "tokens")]


def changed(path, value):
    document = copy.deepcopy(VALID)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


def as_json(document):
    return json.dumps(document).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
wrong_types = st.builds(
    lambda path, value: as_json(changed(path, [value, None])),  # a list is right at none of them
    st.sampled_from(PATHS),
    json_values,
)
unknown_fields = st.builds(
    lambda parent, name, value: as_json(changed((*parent, f"x{name}"), value)),
    st.sampled_from([(), ("metadata",), ("spec",), ("spec", "method"), ("spec", "accept")]),
    st.text(max_size=30),
    json_values,
)
huge_numbers = st.builds(
    lambda path, digits, sign: as_json(changed(path, "@")).replace(
        b'"@"', (sign + "9" * digits).encode()
    ),
    st.sampled_from(NUMBERS),
    st.integers(17, 60_000),
    st.sampled_from(["", "-"]),
)
non_finite = st.builds(
    lambda path, word: as_json(changed(path, "@")).replace(b'"@"', word.encode()),
    st.sampled_from(NUMBERS),
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", ".nan", ".inf", "-.inf", "1e999", "-1e999", "1e-9999x"]
    ),
)
nesting = st.builds(
    lambda depth, opening, closing: (opening * depth + closing * depth).encode(),
    st.integers(21, 60_000),
    *(st.shared(st.sampled_from([("[", "]"), ('{"a":', "}"), ("- ", ""), ("{a: ", "}")]), key="p")
      .map(lambda pair, side=side: pair[side]) for side in (0, 1)),
)  # fmt: skip


def bomb(levels, width, kind):
    """Aliases of aliases: `width ** levels` leaves when they are followed."""
    lines = ["a0: &a0 [x, x]" if kind == "list" else "a0: &a0 {k: x}"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        if kind == "merge":
            lines.append(f"a{level}: &a{level} {{<<: [{aliases}], k{level}: x}}")
        else:
            lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines).encode()


bombs = st.builds(bomb, st.integers(2, 200), st.integers(2, 40), st.sampled_from(["list", "merge"]))
tags = st.sampled_from(
    [
        b"!!python/object/apply:os.system ['true']",
        b"!!python/name:os.system",
        b"kind: !!binary aGVsbG8=",
        b"metadata: !!set {a, b}",
        b"--- a\n--- b",
        b"%TAG ! tag:x\n--- a",
        b"a: 1\na: 2",
        b'{"kind": 1, "kind": 2}',
    ]
)
tricks = st.builds(
    lambda path, text: as_json(changed(path, text)),
    st.sampled_from(NAMES),
    st.sampled_from(
        [
            "../../etc/passwd",
            "/etc/passwd",
            "..",
            "a/../../b",
            "c:\\windows",
            "file:///etc/passwd",
            "a\0b",
            "a\nb",
            "$(reboot)",
            "{{7*7}}",
            "'; DROP TABLE revisions; --",
            "x" * 5000,
            "\u202egnp",
            "\uff41",
            "\uff32emove",
        ]
    ),
)
# Well formed, and no layer of any model: the model refuses them.
unknown_sites = st.builds(
    lambda text: as_json(changed(("spec", "method", "sites"), [text])),
    st.sampled_from(["", ":", "a:", "../x:y", "text_encoder", "\0:x", " : ", "x" * 3000 + ":y"]),
)
binaries = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from(
        [
            b"PK\x03\x04archive/data.pkl",  # what torch.save writes is a zip
            pickle.dumps({"weight": [1.0] * 10}),
            gzip.compress(b"0" * 1_000_000),
            struct.pack("<Q", 2**62) + b'{"weight":{}}',  # a safetensors header without end
            struct.pack("<Q", 10) + b'{"a":{}}  ',
            b"\x93NUMPY\x01\x00",
            b"\xff\xfe",
            b"\x00",
        ]
    ),
    st.binary(max_size=2000),
)
noise = (
    st.binary(max_size=400)
    | st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass"))
).filter(lambda body: b"ConceptEdit" not in body)  # Hypothesis did write a whole manifest once
truncated = st.integers(1, len(as_json(VALID)) - 1).map(lambda size: as_json(VALID)[:size])
oversized = st.integers(256 * 1024, 900_000).map(lambda size: b"a: " + b"x" * size)

hostile_bodies = st.one_of(
    wrong_types,
    unknown_fields,
    huge_numbers,
    non_finite,
    nesting,
    bombs,
    tags,
    tricks,
    binaries,
    noise,
    truncated,
    oversized,
)
