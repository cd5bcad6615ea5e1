"""A training killed five times ends with the weights of an uninterrupted one.

    python benchmarks/kills.py [--data DIR] [--kills 5] [--seed 0]

Starts the same training twice through the command line. The second is killed with SIGKILL at random
moments and resumed each time; the middle kill waits until a checkpoint is being written. Prints
when each kill came and the SHA-256 of both final weights. Without a folder, faces are rendered.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asmkit.datasets import synthetic_faces

SETTINGS = [
    *("--epochs", "12", "--batch-size", "16", "--input-size", "64", "--threads", "2", "--quiet"),
    *("--set", "width=0.5", "--set", "warmup_steps=20"),
]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "asmkit", "train", *arguments], stdout=subprocess.DEVNULL
    )


def digest(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def epochs_done(run: Path) -> int:
    log = run / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_until(condition: object, process: subprocess.Popen[bytes]) -> bool:
    """Poll every half millisecond; False when the training ended first."""
    assert callable(condition)
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(5e-4)
    return True


def kill_somewhere(
    process: subprocess.Popen[bytes], run: Path, while_writing: bool, wait: float
) -> str:
    """Kill after the next epoch and ``wait`` seconds, or in the middle of a checkpoint."""
    done = epochs_done(run)
    wait_until(lambda: epochs_done(run) > done, process)
    if while_writing:
        wait_until(lambda: any(run.glob(".checkpoint.*.part*")), process)
    else:
        time.sleep(wait)
    if process.poll() is not None:
        return "the training had ended"
    process.send_signal(signal.SIGKILL)
    process.wait()
    half = [path.stat().st_size for path in run.glob(".checkpoint.*.part*")]
    where = f"while a checkpoint was written ({half[0]} bytes of it)" if half else "in an epoch"
    return f"killed after epoch {epochs_done(run)}, {where}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = arguments.data
        if data is None:
            data = folder / "faces"
            synthetic_faces(160, arguments.seed, size=96).save(data)
        whole, killed = folder / "whole", folder / "killed"
        start("--data", str(data), "--out", str(whole), *SETTINGS).wait()
        process = start("--data", str(data), "--out", str(killed), *SETTINGS)
        for number in range(arguments.kills):
            writing = number == arguments.kills // 2
            print(kill_somewhere(process, killed, writing, rng.uniform(0.0, 1.5)), flush=True)
            process = start("--resume", str(killed), "--quiet")
        process.wait()
        print("uninterrupted", digest(whole))
        print("killed       ", digest(killed))
        if digest(whole) != digest(killed):
            sys.exit("the weights differ")
        print("the same")


if __name__ == "__main__":
    main()
