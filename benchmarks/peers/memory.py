"""Resident memory of this process, as the system counts it now."""

from __future__ import annotations

from pathlib import Path


def resident_megabytes() -> float:
    """MB in memory, mapped files' pages among them; 0 where the system does not say (/proc/self/status)."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
