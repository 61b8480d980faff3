"""The table from error class to wire: complete, one shape, nothing leaks."""

from collections.abc import Iterator

import pytest

from edits import errors as library
from edits.errors import QuickFixError
from service import errors as service
from service.errors import HTTP_ERRORS, Problem, describe, wire_body

ONLY_AT_START = {
    library.ModelLoadError,
    library.GraphsDamaged,
    library.GraphsUnexportable,
    service.SettingsInvalid,
    service.TokensInvalid,
    service.ApiKeysInvalid,
    service.BackendUnavailable,
    service.BackendMismatch,
}


def leaves(parent: type[QuickFixError]) -> Iterator[type[QuickFixError]]:
    children = parent.__subclasses__()
    if not children:
        yield parent
    for child in children:
        yield from leaves(child)


def example(kind: type[QuickFixError]) -> QuickFixError:
    if kind is library.HeadMoved:
        return library.HeadMoved("moved", expected=1, actual=2)
    if kind is service.QueueFull:
        return service.QueueFull("full", retry_after=3)
    return kind("said", param="spec.concept")


@pytest.mark.parametrize("kind", sorted(set(leaves(QuickFixError)) - ONLY_AT_START, key=str))
def test_every_error_that_a_request_can_meet_has_a_row(kind: type[QuickFixError]) -> None:
    problem = describe(example(kind))
    assert problem.type != "internal_error"
    assert 400 <= problem.status < 600


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (library.ManifestInvalid, 422),
        (library.SiteUnknown, 422),
        (library.RevisionNotFound, 404),
        (library.EditNotFound, 404),
        (library.HeadMoved, 409),
        (library.EditConflict, 409),
        (library.StoreUnavailable, 503),
        (service.Unauthenticated, 401),
        (service.Forbidden, 403),
        (service.PolicyForbidden, 403),
        (library.PolicyNotFound, 404),
        (service.DirectoryOwnsEdits, 409),
        (service.QueueFull, 429),
        (service.NotReady, 503),
        (service.RequestInvalid, 400),
    ],
)
def test_statuses_are_the_contracts(kind: type[QuickFixError], status: int) -> None:
    assert describe(example(kind)).status == status


def test_a_subclass_without_a_row_takes_its_parents() -> None:
    class Odd(library.SiteUnknown):
        pass

    assert describe(Odd("no such site")).type == "site_unknown"


def test_what_is_not_ours_is_500_and_says_nothing() -> None:
    problem = describe(ValueError("/srv/models/secret and the prompt"))
    assert (problem.status, problem.type) == (500, "internal_error")
    assert "secret" not in problem.message
    assert "prompt" not in problem.message


def test_store_failures_do_not_show_the_database_to_clients() -> None:
    shown = describe(library.StoreUnavailable("the store sqlite:////srv/log.db cannot be used"))
    assert "/srv" not in shown.message


def test_the_body_has_exactly_the_contracts_shape() -> None:
    assert wire_body(Problem(422, "site_unknown", "no such site", "spec.method.sites")) == {
        "error": {"type": "site_unknown", "message": "no such site", "param": "spec.method.sites"}
    }


def test_a_full_queue_says_when_to_come_back() -> None:
    assert describe(service.QueueFull("full", retry_after=3)).retry_after == 3


def test_no_two_rows_share_a_type() -> None:
    types = [kind for _status, kind in HTTP_ERRORS.values()]
    assert len(types) == len(set(types))
