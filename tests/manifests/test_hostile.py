"""Hostile bodies are refused with a message, quickly and in little memory."""

import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings

from edits.errors import ManifestInvalid
from edits.manifests import parse_manifest

from .hostile import VALID, as_json, hostile_bodies


def test_what_is_made_hostile_here_is_a_manifest_otherwise():
    assert parse_manifest(as_json(VALID)).name == "remove-pistol"


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(hostile_bodies)
def test_a_hostile_body_is_refused_with_a_message_in_a_second_and_50_mib(body):
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(ManifestInvalid) as refused:
            parse_manifest(body)
    finally:
        seconds = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert 10 < len(refused.value.message) < 2000
    assert peak < 50 * 2**20
    assert seconds < 1.0
