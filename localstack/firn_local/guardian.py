"""Waits for the script to end, however it ends, and then ends all that carries its run's mark.

Started by `processes.Supervisor` with a pipe as standard input: end of file means that the script is gone.
"""

import signal
import sys

from .processes import sweep

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(sys.argv[1])
