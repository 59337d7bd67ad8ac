"""`./dev down`: ends every process that any run of this user still has. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from .console import say
from .paths import runs_folder
from .processes import sweep
from .runs import Run


def main() -> None:
    """Ends the scripts first, so that they end their own children, and sweeps what is left."""
    ended = 0
    for folder in sorted(runs_folder().iterdir()):
        if not folder.is_dir() or folder.is_symlink():
            continue
        run = Run(folder)
        if (pid := run.script_pid()) is not None:
            ended += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while run.script_pid() is not None and time.monotonic() < deadline:
                time.sleep(0.1)
        ended += sweep(run.run_id)
    say(f"ended {ended} processes" if ended else "nothing was running")


if __name__ == "__main__":
    main()
