"""A disk that fails, or a process that dies, at one chosen system call: a small library before the C library.

The call that is chosen is counted from `arm` on, over everything that changes files: also what compiled code calls. A
sync does nothing, so that a test can make thousands of them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

OFF, COUNT, ONE, FULL, KILL = range(5)  # ONE call fails; from one on the disk is FULL; KILL at one, a write half done

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int mode; static long at, count; static char renames[4096];
void disk_arm(int m, long n) { mode = m; at = n; count = 0; }
int disk_renames(long n) { return n < 4096 && renames[n]; }
long disk_count(void) { return count; }

/* Whether this call fails. full: whether a full disk would make it fail. */
static int fails(int full, int fd, const void *data, size_t n) {
    if (!mode) return 0;
    count++;
    if (count < 4096) renames[count] = full == 2;
    if (mode == 4 && count == at) {
        if (data) { ssize_t (*w)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write"); w(fd, data, n / 2); }
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    if ((mode == 2 && count == at) || (mode == 3 && count >= at && full == 1)) {
        errno = full == 1 ? ENOSPC : EIO;
        return 1;
    }
    return 0;
}
#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return fd > 2 && fails(1, fd, data, n) ? -1 : real(fd, data, n);
}
#define WRITE_AT(name, off) ssize_t name(int fd, const void *data, size_t n, off to) { \
    REAL(ssize_t, #name, int, const void *, size_t, off); return fails(1, fd, 0, 0) ? -1 : real(fd, data, n, to); }
WRITE_AT(pwrite, off_t) WRITE_AT(pwrite64, off64_t)
#define CUT(name, off) int name(int fd, off n) { \
    REAL(int, #name, int, off); return fails(1, fd, 0, 0) ? -1 : real(fd, n); }
CUT(ftruncate, off_t) CUT(ftruncate64, off64_t)
int fallocate(int fd, int how, off_t from, off_t n) {
    REAL(int, "fallocate", int, int, off_t, off_t); return fails(1, fd, 0, 0) ? -1 : real(fd, how, from, n); }
int fsync(int fd) { return fails(1, fd, 0, 0) ? -1 : 0; }
int fdatasync(int fd) { return fails(1, fd, 0, 0) ? -1 : 0; }

#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); int rights = flags & O_CREAT ? va_arg(more, int) : 0; va_end(more); \
    REAL(int, #name, const char *, int, ...); \
    return flags & O_CREAT && fails(1, -1, 0, 0) ? -1 : real(path, flags, rights); }
OPEN(open) OPEN(open64)
#define OPENAT(name) int name(int in, const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); int rights = flags & O_CREAT ? va_arg(more, int) : 0; va_end(more); \
    REAL(int, #name, int, const char *, int, ...); \
    return flags & O_CREAT && fails(1, -1, 0, 0) ? -1 : real(in, path, flags, rights); }
OPENAT(openat) OPENAT(openat64)

int rename(const char *a, const char *b) {
    REAL(int, "rename", const char *, const char *); return fails(2, -1, 0, 0) ? -1 : real(a, b); }
int renameat(int x, const char *a, int y, const char *b) {
    REAL(int, "renameat", int, const char *, int, const char *); return fails(2, -1, 0, 0) ? -1 : real(x, a, y, b); }
int mkdir(const char *path, mode_t rights) {
    REAL(int, "mkdir", const char *, mode_t); return fails(1, -1, 0, 0) ? -1 : real(path, rights); }
int unlink(const char *path) { REAL(int, "unlink", const char *); return fails(0, -1, 0, 0) ? -1 : real(path); }
int unlinkat(int in, const char *path, int how) {
    REAL(int, "unlinkat", int, const char *, int); return fails(0, -1, 0, 0) ? -1 : real(in, path, how); }
int rmdir(const char *path) { REAL(int, "rmdir", const char *); return fails(0, -1, 0, 0) ? -1 : real(path); }
int chmod(const char *path, mode_t rights) {
    REAL(int, "chmod", const char *, mode_t); return fails(0, -1, 0, 0) ? -1 : real(path, rights); }
"""


def compiler() -> str | None:
    """A C compiler for a library that is loaded first, which only Linux has."""
    return shutil.which("cc") if sys.platform == "linux" else None


def run(program: Path, folder: Path, *arguments: str, timeout: float = 120) -> str:
    """What a Python program prints that runs on such a disk."""
    library = folder / "failing_disk.so"
    (folder / "failing_disk.c").write_text(SOURCE)
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-w", "-o", library, folder / "failing_disk.c", "-ldl"]
    subprocess.run([str(part) for part in command], check=True)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, str(program), str(folder), *arguments],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


class Disk:
    """The disk of a process that `run` started."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.disk_count.restype = ctypes.c_long

    def calls(self, work: Callable[[], object]) -> tuple[int, set[int]]:
        """(how many calls `work` makes, the numbers of those that rename)."""
        self._library.disk_arm(COUNT, ctypes.c_long(0))
        try:
            work()
        finally:
            found = int(self._library.disk_count())
            self._library.disk_arm(OFF, ctypes.c_long(0))
        return found, {at for at in range(1, found + 1) if self._library.disk_renames(ctypes.c_long(at))}

    def failing(self, how: int, at: int, work: Callable[[], object]) -> Exception | None:
        """Do `work` while call number `at` fails; what it raised."""
        self._library.disk_arm(how, ctypes.c_long(at))
        try:
            work()
        except Exception as error:
            return error
        finally:
            self._library.disk_arm(OFF, ctypes.c_long(0))
        return None

    def killed(self, at: int, work: Callable[[], object]) -> bool:
        """Do `work` in a child that is killed at call number `at`; whether it was."""
        child = os.fork()
        if not child:
            self._library.disk_arm(KILL, ctypes.c_long(at))
            work()
            os._exit(0)
        return os.waitpid(child, 0)[1] != 0
