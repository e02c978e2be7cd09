"""How much memory of its own a child process needs for a piece of work."""

# Goes before a child's program, and gives it ``grown(work)``: the most KiB that the process had
# while ``work`` ran, over what it had before. Pages of mapped files do not count: the kernel takes
# them back as it likes.
GROWN = """
import re, threading
from pathlib import Path
import torch
torch.ones(9).add(1)

def anonymous():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"Anonymous: +(\\d+)", text)[1])

def grown(work):
    before, peak, done = anonymous(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return peak - before
"""
