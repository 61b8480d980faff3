"""The worker's threads share one arena of glibc, and large blocks come from it too."""

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
import ctypes, sys
if sys.argv[1] == "settled":
    from service.allocator import settle_allocator
    assert settle_allocator()
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
info = ctypes.CDLL(None).mallinfo2
info.restype = Info
before = info().hblks
block = bytearray(16 * 2**20)
print(info().hblks - before)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


def counted(program: str, how: str) -> int:
    command = [sys.executable, "-c", program, how]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(ran.stdout)


def test_eight_threads_share_one_arena_and_have_more_as_it_is() -> None:
    assert counted(COUNT, "settled") == 1 < counted(COUNT, "as it is")


def test_a_block_of_16_mib_comes_from_the_heap_and_from_the_system_as_it_is() -> None:
    assert (counted(MAPPED, "settled"), counted(MAPPED, "as it is")) == (0, 1)
