"""Caption pairs from a file: what is read, what is refused with which field, and what ships."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edits.errors import TracePromptsInvalid
from edits.evaluation.judge import Judge
from edits.method.captions import Caption, mentions
from edits.method.tokens import CaptionTokenizer
from edits.tracing.prompts import MAX_BYTES, TracePair, load_prompts, parse_prompts, select

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"
SHIPPED = MODEL / "attributes.yaml"

PISTOL = {
    "caption": "a photo of a pistol on a red background",
    "concept": "pistol",
    "anchor_caption": "a photo of a toy on a red background",
    "class": "pistol",
}
BEER = {
    "caption": "a mug of beer",
    "concept": "mug of beer",
    "anchor_caption": "a fish",
    "class": "beer",
}
FILE = {
    "apiVersion": "quickfix/v1",
    "kind": "TracePrompts",
    "attributes": {"object": {"judge": "object", "pairs": [PISTOL, BEER]}},
}


def body(**changes):
    """The file above with values set at dotted paths (`__` for a dot); None takes a field out."""
    document = copy.deepcopy(FILE)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        target = document
        for parent in parents:
            target = target[parent]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return json.dumps(document).encode()


def refusal(data):
    with pytest.raises(TracePromptsInvalid) as refused:
        parse_prompts(data)
    return refused.value


def test_a_pair_knows_its_attribute_place_concept_head_and_class():
    assert parse_prompts(body()) == {
        "object": (
            TracePair(
                attribute="object",
                index=0,
                caption=Caption(PISTOL["caption"], 13, 19),
                anchor_caption=PISTOL["anchor_caption"],
                head="object",
                wanted="pistol",
            ),
            TracePair("object", 1, Caption("a mug of beer", 2, 13), "a fish", "object", "beer"),
        )
    }


def test_yaml_reads_as_json_does():
    text = b"""
apiVersion: quickfix/v1
kind: TracePrompts
attributes:
  object:
    judge: object
    pairs:
      - {caption: a photo of a pistol on a red background, concept: pistol,
         anchor_caption: a photo of a toy on a red background, class: pistol}
      - {caption: a mug of beer, concept: mug of beer, anchor_caption: a fish, class: beer}
"""
    assert parse_prompts(text) == parse_prompts(body())


def test_head_and_class_may_be_left_out():
    (first, _) = parse_prompts(
        body(attributes__object__judge=None, attributes__object__pairs__0__class=None)
    )["object"]
    assert (first.head, first.wanted) == ("object", "pistol")


def test_head_and_class_may_differ_from_attribute_and_concept():
    pairs = parse_prompts(
        body(attributes={"weapon-1": {"judge": "object", "pairs": [{**BEER, "class": "ale"}]}})
    )
    assert [(p.attribute, p.head, p.wanted) for p in pairs["weapon-1"]] == [
        ("weapon-1", "object", "ale")
    ]


def test_attributes_keep_the_order_of_the_file():
    attributes = {name: {"pairs": [BEER]} for name in ("style", "object", "colour")}
    assert list(parse_prompts(body(attributes=attributes))) == ["style", "object", "colour"]


def test_the_concept_is_found_in_any_case_and_spacing():
    (pair,) = parse_prompts(
        body(
            attributes__object__pairs=[
                {
                    "caption": "an  Upside\tDown cat",
                    "concept": "upside  down",
                    "anchor_caption": "a cat",
                }
            ]
        )
    )["object"]
    assert pair.caption == Caption("an Upside Down cat", 3, 14)
    assert pair.wanted == "upside down"


def test_a_letter_that_folds_to_two_does_not_shift_the_place():
    (pair,) = parse_prompts(
        body(
            attributes__object__pairs=[
                {
                    "caption": "die große STRASSE dort",
                    "concept": "Straße",
                    "anchor_caption": "die große Allee dort",
                }
            ]
        )
    )["object"]
    assert pair.caption.subject == "STRASSE"


def test_the_same_caption_may_serve_two_concepts_and_two_attributes():
    red = {**PISTOL, "concept": "red", "anchor_caption": "a photo of a pistol on a blue background"}
    prompts = parse_prompts(
        body(attributes={"object": {"pairs": [PISTOL, red]}, "weapon": {"pairs": [PISTOL]}})
    )
    assert [(pair.index, pair.caption.subject) for pair in prompts["object"]] == [
        (0, "pistol"),
        (1, "red"),
    ]


PAIR = "attributes.object.pairs.1"


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"concept": "gun"}, f"{PAIR}.concept", "does not stand in the caption as whole words"),
        ({"concept": "bee"}, f"{PAIR}.concept", "does not stand in the caption as whole words"),
        ({"caption": "beer of beer", "concept": "beer"}, f"{PAIR}.concept", "stands 2 times"),
        ({"caption": "Beer, beer", "concept": "beer"}, f"{PAIR}.concept", "stands 2 times"),
        ({"caption": "go go go", "concept": "go go"}, f"{PAIR}.concept", "stands 2 times"),
        ({"anchor_caption": "A  mug of BEER"}, f"{PAIR}.anchor_caption", "but for case and"),
        (
            {"anchor_caption": "the Mug  of beer"},
            f"{PAIR}.anchor_caption",
            "still holds 'mug of beer'",
        ),
        ({"concept": ""}, f"{PAIR}.concept", "is empty"),
        ({"caption": " \t"}, f"{PAIR}.caption", "is empty"),
        ({"anchor_caption": ""}, f"{PAIR}.anchor_caption", "is empty"),
        ({"class": ""}, f"{PAIR}.class", "is empty"),
        ({"concept": 7}, f"{PAIR}.concept", "must be text, not 7; put it in quotes"),
        ({"caption": ["beer"]}, f"{PAIR}.caption", "must be text, not a list"),
        ({"class": True}, f"{PAIR}.class", "must be text, not true; put it in quotes"),
        ({"caption": "beer " * 201}, f"{PAIR}.caption", "has 1004 characters; shorten it"),
        ({"concept": "b" * 121}, f"{PAIR}.concept", "has 121 characters; shorten it"),
        ({"caption": "a be\u200ber"}, f"{PAIR}.caption", "invisible character U+200B"),
        ({"anchor": "x"}, f"{PAIR}.anchor", "is no known field"),
        ({"wanted": "beer"}, f"{PAIR}.wanted", "is no known field"),
        ({"anchor_caption": None}, f"{PAIR}.anchor_caption", "is missing"),
        ({"caption": None}, f"{PAIR}.caption", "is missing"),
        ({"concept": None}, f"{PAIR}.concept", "is missing"),
    ],
)
def test_a_pair_that_breaks_a_rule_is_refused_by_its_field(changes, param, words):
    error = refusal(
        body(**{f"attributes__object__pairs__1__{name}": to for name, to in changes.items()})
    )
    assert error.param == param
    assert error.message.startswith(f"{param}: ") and words in error.message


@pytest.mark.parametrize(
    ("path", "value", "param", "words"),
    [
        ("apiVersion", "quickfix/v2", "apiVersion", "must be 'quickfix/v1', not \"quickfix/v2\""),
        ("apiVersion", None, "apiVersion", "is missing"),
        ("kind", "ConceptEdit", "kind", "must be 'TracePrompts', not \"ConceptEdit\""),
        ("metadata", {}, "metadata", "is no known field"),
        ("attributes", None, "attributes", "is missing"),
        ("attributes", {}, "attributes", "is empty; list at least 1"),
        ("attributes", [], "attributes", "must be a mapping, not a list"),
        (
            "attributes",
            {f"a{n}": {"pairs": [BEER]} for n in range(33)},
            "attributes",
            "has more than 32 entries",
        ),
        ("attributes__Object", {"pairs": [BEER]}, "attributes.Object", "lower-case letters"),
        ("attributes__a b", {"pairs": [BEER]}, "attributes.a b", "lower-case letters"),
        ("attributes__object", [], "attributes.object", "must be a mapping of fields, not a list"),
        ("attributes__object__head", "x", "attributes.object.head", "is no known field"),
        ("attributes__object__judge", 1, "attributes.object.judge", "must be text, not 1"),
        ("attributes__object__judge", " ", "attributes.object.judge", "is empty"),
        ("attributes__object__pairs", None, "attributes.object.pairs", "is missing"),
        ("attributes__object__pairs", [], "attributes.object.pairs", "is empty; list at least 1"),
        ("attributes__object__pairs", {}, "attributes.object.pairs", "must be a list"),
        ("attributes__object__pairs", "x", "attributes.object.pairs", 'must be a list, not "x"'),
        ("attributes__object__pairs__1", "x", PAIR, "must be a mapping of fields"),
        (
            "attributes__object__pairs",
            [{**BEER, "caption": f"mug of beer {n}"} for n in range(1001)],
            "attributes.object.pairs",
            "has more than 1000 entries",
        ),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused_by_its_field(path, value, param, words):
    error = refusal(body(**{path: value}))
    assert error.param == param
    assert words in error.message


@pytest.mark.parametrize(
    "again",
    [
        PISTOL,
        {**PISTOL, "caption": "A photo of a  PISTOL on a red background", "concept": "Pistol"},
        {**PISTOL, "class": "knife"},
    ],
)
def test_a_pair_that_stands_twice_is_refused_where_it_stands_again(again):
    error = refusal(body(attributes__object__pairs=[PISTOL, BEER, again]))
    assert error.param == "attributes.object.pairs.2"
    assert "is pair 0 once more" in error.message


@pytest.mark.parametrize(
    ("data", "param", "words"),
    [
        (b"", None, "prompts file is empty"),
        (b"null", None, "prompts file is a mapping"),
        (b"- a\n", None, "prompts file is a mapping"),
        (b"a: [1", None, "not valid YAML or JSON"),
        (b"\xff\xfe", None, "UTF-8"),
        (b"a: 1\n---\na: 2\n", None, "several documents"),
        (b"kind: a\nkind: b\n", "kind", "stands twice"),
        (b"attributes: &a {object: *a}\n", "attributes", "anchor or alias"),
        (b"kind: !!python/name:os.system\n", "kind", "uses the YAML tag"),
        (b"kind: .nan\n", "kind", "not a finite number"),
        (b'{"kind": "\\ud800"}', "kind", "half a character"),
        (b"a: " + b"[" * 30, "a.0.0.0", "nests deeper than 20 levels"),
        (b"#" * (MAX_BYTES + 1), None, "at most 262144 are read"),
    ],
)
def test_what_is_no_plain_document_is_refused(data, param, words):
    error = refusal(data)
    assert error.param == param
    assert words in error.message
    assert "manifest" not in error.message


def test_a_file_of_the_largest_size_is_read():
    data = body()
    assert len(parse_prompts(data + b" " * (MAX_BYTES - len(data)))["object"]) == 2


def test_the_largest_number_of_pairs_is_read():
    pairs = [{**BEER, "caption": f"a mug of beer {n}"} for n in range(1000)]
    assert parse_prompts(body(attributes__object__pairs=pairs))["object"][999].index == 999


def test_a_file_that_is_missing_or_a_folder_is_refused_by_name(tmp_path):
    for path, words in ((tmp_path / "no.yaml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(TracePromptsInvalid) as refused:
            load_prompts(path)
        assert refused.value.message.startswith(f"{path.name}: cannot be read: ")
        assert words in refused.value.message


def test_a_refusal_from_a_file_names_file_and_field(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(body(attributes__object__pairs__0__concept="gun"))
    with pytest.raises(TracePromptsInvalid) as refused:
        load_prompts(path)
    assert refused.value.message.startswith("mine.yaml: attributes.object.pairs.0.concept: 'gun'")
    assert refused.value.param == "attributes.object.pairs.0.concept"


def test_a_file_over_the_limit_is_not_read_whole(tmp_path):
    path = tmp_path / "big.yaml"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: reading it whole would not end
    with pytest.raises(TracePromptsInvalid, match="at most 262144 are read"):
        load_prompts(path)


def test_select_takes_the_named_attributes_in_their_order():
    prompts = parse_prompts(body(attributes={name: {"pairs": [BEER]} for name in ("a", "b", "c")}))
    assert select(prompts, []) == prompts
    assert list(select(prompts, ["c", "a", "c"])) == ["c", "a"]
    assert select(prompts, ["b"]) == {"b": prompts["b"]}


def test_select_refuses_an_unknown_attribute_and_lists_the_known():
    prompts = parse_prompts(body(attributes={name: {"pairs": [BEER]} for name in ("b", "a")}))
    with pytest.raises(TracePromptsInvalid) as refused:
        select(prompts, ["a", "shape"])
    assert refused.value.message == "there is no attribute 'shape'; known are a, b"
    assert refused.value.param == "attributes"


LETTERS = st.sampled_from("ab\u00df\u0130\u017fAB.-\u00e9\u0301") | st.characters(
    categories=["L", "N", "P"]
)
WORDS = st.lists(st.text(LETTERS, min_size=1, max_size=3), min_size=1, max_size=3).map(" ".join)


@given(before=WORDS, concept=WORDS, after=WORDS, anchor=WORDS)
@example(before="an", concept="\u0130", after="isle", anchor="x")
@example(before="an", concept="STRASSE", after="\u00df", anchor="stra\u00dfen")
def test_an_accepted_pair_marks_the_concept_and_its_anchor_lacks_it(before, concept, after, anchor):
    pair = {"caption": f"{before} {concept} {after}", "concept": concept, "anchor_caption": anchor}
    try:
        (read,) = parse_prompts(body(attributes__object__pairs=[pair]))["object"]
    except TracePromptsInvalid as error:
        assert str(error.param).startswith("attributes.object.pairs.0.")
        return
    assert read.caption.subject.casefold().split() == read.wanted.casefold().split()
    assert mentions(read.caption.text, read.wanted)
    assert not mentions(read.anchor_caption, read.wanted)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_raise_anything_else(data):
    assert isinstance(refusal(data), TracePromptsInvalid)


@pytest.fixture(scope="module")
def shipped():
    return load_prompts(SHIPPED)


def test_the_demo_model_ships_twelve_pairs_of_each_attribute(shipped):
    assert {name: len(pairs) for name, pairs in shipped.items()} == {
        "object": 12,
        "style": 12,
        "colour": 12,
        "viewpoint": 12,
    }


def test_heads_and_classes_of_the_shipped_pairs_are_the_judges(shipped):
    classes = Judge.load(MODEL / "judge.safetensors").classes
    for pairs in shipped.values():
        for pair in pairs:
            assert pair.wanted in classes[pair.head], pair


def test_shipped_pairs_span_the_judges_classes(shipped):
    wanted = {name: {pair.wanted for pair in pairs} for name, pairs in shipped.items()}
    assert {name: len(classes) for name, classes in wanted.items()} == {
        "object": 12,
        "style": 6,
        "colour": 8,
        "viewpoint": 2,
    }
    assert "pistol" in wanted["object"]


def test_half_of_the_shipped_captions_go_on_after_their_concept(shipped):
    for name, pairs in shipped.items():
        ends = sum(pair.caption.stop == len(pair.caption.text) for pair in pairs)
        assert ends == 6, name


def test_shipped_captions_fit_the_encoder_and_some_concepts_have_several_tokens(shipped):
    from transformers import CLIPTokenizer  # noqa: PLC0415 - slow to import

    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    place = CaptionTokenizer(tokenizer)
    for name in ("object", "style", "viewpoint"):
        for pair in shipped[name]:
            assert place([pair.caption])[0].last > 0
        assert any(len(tokenizer.tokenize(pair.caption.subject)) > 1 for pair in shipped[name])
