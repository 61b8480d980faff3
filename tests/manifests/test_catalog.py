"""The manifests that ship are valid, and each stands in a file of its own name."""

from importlib import resources

import pytest

from edits import manifests
from edits.errors import EditNotFound
from edits.manifests import RevisionContent, catalog, catalog_entry, load_directory

FOLDER = resources.files("edits.manifests") / "catalog"


def test_every_file_of_the_catalog_is_one_manifest_named_after_it():
    files = sorted(file.name for file in FOLDER.iterdir())
    assert files == [f"{edit.name}.yaml" for edit in catalog()]
    assert catalog() == load_directory(str(FOLDER)).edits


def test_the_catalog_can_be_published_as_one_revision():
    content = RevisionContent(catalog())
    assert content.policies["default"] == tuple(edit.name for edit in catalog())


def test_an_entry_is_found_by_name():
    assert [catalog_entry(edit.name) for edit in catalog()] == list(catalog())


def test_an_unknown_entry_is_refused_with_those_that_exist():
    with pytest.raises(EditNotFound, match="the catalog has no edit 'remove-moon'; it holds: "):
        catalog_entry("remove-moon")


def test_the_public_names_are_the_ones_listed():
    assert list(manifests.__all__) == sorted(
        manifests.__all__, key=lambda name: (not name.isupper(), name)
    )
    assert all(hasattr(manifests, name) for name in manifests.__all__)
