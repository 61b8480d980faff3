"""The worker's threads share two arenas of glibc, however many come and go."""

import subprocess
import sys

import pytest

COUNT = """
import ctypes, re, sys, tempfile, threading
if sys.argv[1] == "limited":
    from service.allocator import limit_arenas
    assert limit_arenas()
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


def arenas(how: str) -> int:
    command = [sys.executable, "-c", COUNT, how]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's arenas")
def test_eight_threads_share_two_arenas_and_have_more_without_the_limit() -> None:
    assert arenas("limited") <= 2 < arenas("as it is")
