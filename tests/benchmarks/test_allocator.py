"""A benchmark starts itself again with jemalloc preloaded, once, and with its own arguments."""

import os
import subprocess
import sys

import pytest

from tests.debian import packages
from tools.debian import shared_library

PROGRAM = """
import sys
from benchmarks.allocator import Allocator, use
from service.allocator import allocator
print(allocator(), *sys.argv[1:], flush=True)
use(Allocator(sys.argv[1]))
print("measures on", allocator(), flush=True)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD")


def said(*arguments: str, preload: str = "") -> list[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {**os.environ, "LD_PRELOAD": preload}
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return ran.stdout.splitlines()


def test_with_the_systems_allocator_it_goes_on_as_it_was_started() -> None:
    assert said("system", "--pairs") == ["glibc system --pairs", "measures on glibc"]


def test_it_starts_again_with_jemalloc_once_and_keeps_its_arguments() -> None:
    with packages():
        library = shared_library("libjemalloc2", "libjemalloc.so.2")
    again = ["jemalloc jemalloc --pairs 3", "measures on jemalloc"]
    assert said("jemalloc", "--pairs", "3") == ["glibc jemalloc --pairs 3", *again]
    assert said("jemalloc", "--pairs", "3", preload=str(library)) == again
