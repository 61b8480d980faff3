"""What got past an edit becomes an alias where it named the concept all along, else it is kept."""

from dataclasses import replace

from edits.evaluation.attacks.command import _as_attacked
from edits.evaluation.attacks.drawing import DrawnAttack, DrawnFind
from edits.evaluation.attacks.hardening import Hardening, hardening
from edits.evaluation.attacks.result import Find
from edits.evaluation.rates import Rate
from edits.manifests import catalog_entry, parse_manifest
from edits.method import EditSpec
from edits.plan import edit_spec, is_open

SPEC = EditSpec("e", "pistol", "toy", aliases=("gun",), preserve=("knife",))


def drawn(attack, *finds):
    """`finds`: name, pictures of two that show the concept, and vectors."""
    return DrawnAttack(
        attack,
        tuple(
            DrawnFind(Find(name, name, 0.0, 0.0, vectors=vectors), Rate(hits, 2))
            for name, hits, vectors in finds
        ),
    )


EDITED = (
    drawn("characters", ("PISTOL", 2, ()), ("p1stol", 1, ()), ("pitsol", 0, ())),
    drawn("genetic", ("moon ol dog", 2, ()), ("zero\u200bwidth", 1, ()), ("Knife", 2, ())),
    drawn("inversion", ("*", 2, ((1.0,),))),
)
UNEDITED = (
    drawn("characters", ("PISTOL", 2, ()), ("p1stol", 2, ()), ("pitsol", 2, ())),
    drawn("genetic", ("moon ol dog", 0, ()), ("zero\u200bwidth", 0, ()), ("Knife", 0, ())),
    drawn("inversion", ("*", 2, ((1.0,),))),
)


def test_a_text_that_the_unedited_model_draws_too_is_an_alias_and_any_other_is_preserved():
    taken = hardening(SPEC, EDITED, UNEDITED, 9)
    assert taken == Hardening(aliases=("p1stol",), preserve=("moon ol dog", "zerowidth"))


def test_attacks_take_turns_until_there_are_enough():
    assert hardening(SPEC, EDITED, UNEDITED, 2) == Hardening(("p1stol",), ("moon ol dog",))
    assert hardening(SPEC, EDITED, UNEDITED, 1) == Hardening((), ("moon ol dog",))


def test_what_the_gate_does_not_admit_is_left_out_and_named():
    """Each text is asked for together with those that were taken before it."""
    asked = []

    def admits(taken):
        asked.append(taken.aliases + taken.preserve)
        return "moon ol dog" not in taken.preserve

    taken = hardening(SPEC, EDITED, UNEDITED, 2, admits=admits)
    assert taken == Hardening(("p1stol",), ("zerowidth",), refused=("moon ol dog",))
    assert asked == [("moon ol dog",), ("p1stol",), ("p1stol", "zerowidth")]


def test_the_hardened_manifest_is_the_next_version_and_asks_for_what_the_spec_does():
    edit, taken = catalog_entry("remove-pistol"), Hardening(("p1stol",), ("moon ol dog",))
    made = taken.manifest(edit)
    assert made.metadata.version == edit.metadata.version + 1
    assert made.spec.aliases == (*edit.spec.aliases, "p1stol")
    assert made.spec.preserve == (*edit.spec.preserve, "moon ol dog")
    assert made.spec.accept == edit.spec.accept
    spec = taken.spec(SPEC)
    assert (spec.aliases, spec.preserve) == (("gun", "p1stol"), ("knife", "moon ol dog"))


def test_the_hardened_manifest_holds_the_settings_that_were_attacked():
    """Left open they would be chosen anew, and something else published than withstood it."""
    edit = catalog_entry("remove-pistol")
    assert is_open(edit)
    attacked = replace(edit_spec(edit), ridge=10.0, preserve_weight=0.3, tokens="last")
    written = _as_attacked(edit, attacked)
    assert not is_open(written)
    assert edit_spec(parse_manifest(written.model_dump(by_alias=True))) == attacked
