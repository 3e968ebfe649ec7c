import subprocess
import sys
from pathlib import Path

import pytest

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TOLD = """
import os
from shared.memory import keep_apart
keep_apart()
import torch
held = torch.ones(16 * 2**20)  # 64 MB
pages = open("/proc/self/smaps_rollup").read().split("AnonHugePages:")[1].split()[0]
print(int(pages) // 1024)
"""


@pytest.mark.skipif(not SWITCH.exists() or "[never]" in SWITCH.read_text(), reason="a system without huge pages")
def test_large_tensors_lie_in_huge_pages():
    found = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 0  # of 64; how many are huge is the system's
