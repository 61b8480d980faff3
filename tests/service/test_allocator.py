"""jemalloc where it is preloaded; else the worker's threads share one arena of glibc.

And what comes from the system instead, and when.
"""

import os
import subprocess
import sys

import pytest

from service.allocator import allocator
from tests.debian import packages
from tools.debian import shared_library

COUNT = """
import ctypes, re, sys, tempfile, threading
if sys.argv[1] == "settled":
    from service.allocator import settle_allocator
    assert settle_allocator()
gate = threading.Barrier(9)
def hold():
    kept = [bytearray(50_000) for _ in range(20)]
    gate.wait()
    gate.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
gate.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(len(re.findall(rb"<heap nr=", file.read())))
gate.wait()
"""


MAPPED = """
import contextlib, ctypes, sys
during = contextlib.nullcontext
if sys.argv[1] != "as it is":
    from service.allocator import activations_apart, settle_allocator
    assert settle_allocator()
    with activations_apart():
        pass
    during = activations_apart if sys.argv[1] == "apart" else during
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
info = ctypes.CDLL(None).mallinfo2
info.restype = Info
with during():
    before = info().hblks
    block = bytearray(int(sys.argv[2]))
    print(info().hblks - before)
"""

# A thread that ends frees 256 MiB, in blocks of 1 MiB between small ones that stay; what of them is
# resident 15 s later.
GIVEN_BACK = """
import sys, threading, time
from service.allocator import allocator, settle_allocator
assert allocator() == sys.argv[1]
assert settle_allocator()
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20
before = resident()
kept = []
def hold():
    blocks = []
    for _ in range(256):
        blocks.append(bytearray(b"x") * 2**20)
        kept.append(bytearray(2000))
thread = threading.Thread(target=hold)
thread.start()
thread.join()
time.sleep(15)
print(resident() - before)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


def counted(program: str, how: str, *arguments: int, preload: str = "") -> int:
    command = [sys.executable, "-c", program, how, *map(str, arguments)]
    environment = {**os.environ, "LD_PRELOAD": preload}
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(ran.stdout)


def test_this_process_knows_whose_malloc_it_has() -> None:
    assert allocator() == (
        "jemalloc" if "jemalloc" in os.environ.get("LD_PRELOAD", "") else "glibc"
    )


def test_preloaded_jemalloc_is_seen_and_gives_back_what_lay_among_small_blocks() -> None:
    with packages():
        library = shared_library("libjemalloc2", "libjemalloc.so.2")
    assert counted(GIVEN_BACK, "glibc") > 200
    assert counted(GIVEN_BACK, "jemalloc", preload=str(library)) < 32


def test_eight_threads_share_one_arena_and_have_more_as_it_is() -> None:
    assert counted(COUNT, "settled") == 1 < counted(COUNT, "as it is")


@pytest.mark.parametrize(
    ("how", "kib", "from_the_system"),
    [
        ("settled", 3 * 1024, 0),
        ("settled", 5 * 1024, 1),
        ("as it is", 3 * 1024, 1),
        ("apart", 3 * 1024, 1),
        ("apart", 32, 0),
    ],
)
def test_only_large_blocks_come_from_the_system_and_activations_while_they_are_kept_apart(
    how: str, kib: int, from_the_system: int
) -> None:
    assert counted(MAPPED, how, kib * 1024) == from_the_system
