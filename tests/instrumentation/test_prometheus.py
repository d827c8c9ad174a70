"""E4: Prometheus' own parser reads the counters, histograms and gauges."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import postlude
from postlude import DeferScope, defer
from postlude.instrumentation import prometheus


def samples(text):
    """Read the text format: the value of each sample by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def registry():
    """A registry of this test alone, with Postlude in it."""
    made = CollectorRegistry()
    prometheus.install(made)
    return made


def test_calls_are_counted_by_function_state_and_reason(registry):
    """Names given with `.named()` make no labels (E4)."""

    def good():
        pass

    def bad():
        raise ValueError("no")

    with DeferScope():
        defer(good).named("1")
        defer(good).named("2")
        defer(good).cancel()
        defer(bad)
    found = {
        (
            labels["function"].rpartition(".")[2],
            labels["state"],
            labels["reason"],
        ): value
        for (name, *pairs), value in samples(generate_latest(registry).decode()).items()
        if name == "postlude_calls_total"
        for labels in [dict(pairs)]
    }
    assert found == {
        ("good", "done", ""): 2,
        ("good", "dropped", "cancelled"): 1,
        ("bad", "failed", ""): 1,
    }


def test_start_delay_and_duration_are_histograms(registry):
    """Each call that ran is in both (E4)."""

    def good():
        pass

    with DeferScope():
        defer(good)
        defer(good)
    counts = {
        name: value
        for (name, *_), value in samples(generate_latest(registry).decode()).items()
        if name.endswith("_count")
    }
    assert counts == {
        "postlude_start_delay_seconds_count": 2,
        "postlude_duration_seconds_count": 2,
    }


def test_the_gauges_show_what_runs_and_waits(registry):
    """While the first of three calls runs, one runs and two wait (E4)."""
    seen = []

    def look():
        seen.append(samples(generate_latest(registry).decode()))

    with DeferScope():
        defer(look)
        defer(list)
        defer(list)
    assert seen[0]["postlude_running",] == 1
    assert seen[0]["postlude_pending",] == 2
    after = samples(generate_latest(registry).decode())
    assert after["postlude_running",] == after["postlude_pending",] == 0


def test_several_processes_are_added_up(tmp_path):
    """The client's multiprocess mode has the calls of all processes (E4)."""
    program = textwrap.dedent(
        """
        from postlude import DeferScope, defer
        from postlude.instrumentation import prometheus
        prometheus.install()
        def good(): pass
        with DeferScope():
            defer(good)
            defer(good)
        """
    )
    reader = textwrap.dedent(
        """
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        print(generate_latest(registry).decode())
        """
    )
    path = str(Path(postlude.__file__).parent.parent)
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    env["PYTHONPATH"] = os.pathsep.join([path, *filter(None, [env.get("PYTHONPATH")])])
    for source in (program, program):
        subprocess.run([sys.executable, "-c", source], env=env, check=True)
    said = subprocess.run(
        [sys.executable, "-c", reader],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    totals = [
        value
        for (name, *_), value in samples(said.stdout).items()
        if name == "postlude_calls_total"
    ]
    assert totals == [4]
