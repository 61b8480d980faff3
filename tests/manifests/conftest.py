import copy

import pytest

PISTOL = {
    "apiVersion": "quickfix/v1",
    "kind": "ConceptEdit",
    "metadata": {
        "name": "remove-pistol",
        "version": 1,
        "owner": "trust-and-safety",
        "reason": "weapons policy 4.2",
    },
    "spec": {
        "concept": "pistol",
        "aliases": ["gun", "handgun"],
        "anchor": "toy",
        "type": "object",
        "preserve": ["knife", "robot"],
        "method": {"sites": "quickfix", "tokens": "last", "ridge": 0.01},
        "accept": {"max_target_rate": 0.05, "max_drop": 0.03},
    },
}


@pytest.fixture
def pistol():
    """The manifest of the contract, as plain values that a test may change."""
    return copy.deepcopy(PISTOL)


@pytest.fixture
def changed():
    """The same manifest with one field, named by its dotted path, set to a value."""

    def change(path, value):
        document = copy.deepcopy(PISTOL)
        *parents, last = path.split(".")
        target = document
        for parent in parents:
            target = target[parent]
        target[last] = value
        return document

    return change
