"""What a person sees who runs a program in a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys


def stderr_on_a_terminal(program: str, *words: object) -> str:
    """What a Python program writes to stderr, which is a terminal."""
    above, below = pty.openpty()
    command = [sys.executable, "-c", program, *map(str, words)]
    subprocess.run(command, stdout=subprocess.PIPE, stderr=below, check=True)
    os.close(below)
    try:
        return os.read(above, 1 << 16).decode()
    except OSError:  # nothing was written
        return ""
    finally:
        os.close(above)
