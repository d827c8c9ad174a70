"""Django's tasks in its own database: a job exists if and only if its order does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import site_of_tasks


@pytest.mark.timeout(600)  # 17 s on two idle cores
def test_random_commits_and_rollbacks_with_tasks():
    """Of 1,000 blocks with savepoints, exactly what was committed (F2)."""
    probe = Path(__file__).parent / "probe_django_tasks.py"
    with site_of_tasks() as environment:
        said = subprocess.run(
            [sys.executable, probe, "1000"],
            check=True,
            capture_output=True,
            env={**os.environ, **environment},
        ).stdout
    found = json.loads(said)
    assert 500 < len(found["orders"]) < 3000
    assert sorted(found["jobs"]) == sorted(found["orders"])
    assert found["after"] == len(found["orders"])
