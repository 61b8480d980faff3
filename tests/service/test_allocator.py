"""The worker's threads share one arena of glibc; what comes from the system instead, and when."""

import subprocess
import sys

import pytest

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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


def counted(program: str, how: str, *arguments: int) -> int:
    command = [sys.executable, "-c", program, how, *map(str, arguments)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(ran.stdout)


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
