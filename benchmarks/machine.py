"""What a figure depends on, the memory it took, its file: for every benchmark, with nothing heavy to import."""

import json
import platform
import resource
import subprocess
from collections.abc import Mapping
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str:
    """The commit that is measured; "" outside version control."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()


def processor() -> str:
    """Name of the processor, as the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def peak_of_process_mb(process: int | None = None) -> float:
    """Largest resident size of a process so far, in MB; of this one for None."""
    # Not ru_maxrss where there is a choice: Linux lets a child inherit the peak of the process that started it.
    status = Path(f"/proc/{process or 'self'}/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    if process is not None:
        return 0.0  # it is gone, or this system does not tell
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def keep(results: Mapping[str, object], out: Path, name: str) -> None:
    """Write results as one line of JSON into the dated file of a benchmark, and print that line last."""
    line = json.dumps(results)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{date.today().isoformat()}-{name}.json").write_text(line + "\n")
    print(line)
