#!/usr/bin/env python3
"""Types into a program that runs on a terminal of its own, and prints what the terminal showed.

usage: terminal.py COMMAND ARG... <keys

A line of the input is what to type, with Python's escapes (\\t Tab, \\r Enter, \\x03 Ctrl-C, \\x04 Ctrl-D, \\x1b[A up).
A line "> TEXT" waits until the terminal shows TEXT after what was waited for before. The exit status is the program's;
124 when it shows no such text, or does not end, within ten seconds.
"""

import os
import pty
import select
import sys
import time

PATIENCE = 10


def read(fd, shown, until):
    """Adds what the terminal shows to shown, until that is enough; false when the program ended or the time is over."""
    end = time.monotonic() + PATIENCE
    while not until():
        ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(fd, 65536)
        except OSError:  # the program has closed its end
            return False
        if not data:
            return False
        shown.extend(data)
    return True


def main():
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[1], sys.argv[1:])
    shown, seen, fine = bytearray(), 0, True
    for line in sys.stdin.read().splitlines():
        if line.startswith("> "):
            text = line[2:].encode()
            if not read(fd, shown, lambda: shown.find(text, seen) >= 0):
                print(f"terminal.py: the terminal does not show {text}", file=sys.stderr)
                fine = False
                break
            seen = shown.find(text, seen) + len(text)
        else:
            os.write(fd, line.encode().decode("unicode_escape").encode("latin-1"))
    if not fine:
        os.kill(pid, 9)
    read(fd, shown, lambda: False)
    ended, status = os.waitpid(pid, os.WNOHANG)
    deadline = time.monotonic() + PATIENCE
    while not ended and time.monotonic() < deadline:
        time.sleep(0.02)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        fine = False
    sys.stdout.write(shown.decode("latin-1").replace("\r", ""))
    sys.exit(os.waitstatus_to_exitcode(status) if fine else 124)


main()
