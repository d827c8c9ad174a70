"""The cases. A subclass named `Test...` with an `engine` runs them all."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from killing.engine import Engine
from killing.stand import Process, Stand, stand

WEB_PROCESSES = 4
CALLS = 200


class KillCases:
    """What an engine that promises at least once must survive."""

    engine: ClassVar[Engine]

    @pytest.fixture
    def stand(self, tmp_path: Path) -> Iterator[Stand]:
        """A queue of its own, with the processes that the test starts."""
        with stand(self.engine, tmp_path) as made:
            yield made

    def test_web_process_is_killed_right_after_the_answer(self, stand: Stand) -> None:
        """F2: an acknowledged call survives the death of its process."""
        web = stand.web()
        names = {f"call-{n}" for n in range(20)}
        acknowledged = {
            name for name in names if stand.post(web, "durable", "note", name)
        }
        web.kill()
        assert acknowledged == names
        stand.worker()
        stand.until(lambda: acknowledged <= stand.done())

    @pytest.mark.parametrize("option", ["durable", "queue"])
    def test_a_process_is_killed_in_mid_call(self, stand: Stand, option: str) -> None:
        """F2: a call whose process dies under it is run by another, with its id."""
        web = stand.web()
        stand.worker()
        assert stand.post(web, option, "wait", "long")
        victim = stand.running("long")
        victim.kill()
        stand.gate.touch()
        stand.replace(victim)
        stand.until(lambda: "long" in stand.done())
        begun = stand.lines("began", "long")
        assert [line.attempt for line in begun] == list(range(1, len(begun) + 1))
        assert len({line.call for line in stand.lines(name="long")}) == 1

    def test_a_process_is_told_to_end_in_mid_call(self, stand: Stand) -> None:
        """F2, D7: a call that the grace is too short for is run by another process."""
        web = stand.web()
        stand.worker()
        assert stand.post(web, "durable", "wait", "long")
        victim = stand.running("long")
        victim.popen.terminate()
        stand.until(lambda: victim.popen.poll() is not None)
        assert "long" not in stand.done()
        stand.gate.touch()
        stand.replace(victim)
        stand.until(lambda: "long" in stand.done())

    def test_one_of_four_web_processes_is_killed(
        self, stand: Stand, record_property: Callable[[str, object], None]
    ) -> None:
        """F2: under load, one of four dies and a fifth comes: nothing is lost."""
        webs = [stand.web() for _ in range(WEB_PROCESSES)]
        if not stand.engine.embedded:
            stand.worker()
        acknowledged = load(stand, webs, CALLS)
        stand.until(lambda: acknowledged <= stand.done())
        record_property("acknowledged", len(acknowledged))
        record_property("twice", len(stand.lines("done")) - len(stand.done()))

    def test_a_call_kills_each_process_that_runs_it(self, stand: Stand) -> None:
        """F2: it ends as failed after retries + 1 runs, and loops no further."""
        web = stand.web()
        workers = [stand.worker() for _ in range(2)]
        assert stand.post(web, "durable", "die", "poison", retries=2)
        everybody = [web, *workers]

        def recorded() -> bool:
            for process in [p for p in everybody if p.popen.poll() is not None]:
                everybody.remove(process)
                everybody.append(stand.replace(process))
            return any(record.name.endswith(":die") for record in stand.records())

        stand.until(recorded)
        fresh = stand.web()
        assert stand.post(fresh, "durable", "note", "after")
        stand.until(lambda: "after" in stand.done())
        assert [line.attempt for line in stand.lines("began", "poison")] == [1, 2, 3]
        (record,) = stand.records()
        assert record.attempt == 3

    def test_attempts_have_one_id(self, stand: Stand) -> None:
        """F1: a call that fails in process is run again elsewhere, with its id."""
        web = stand.web()
        stand.worker()
        assert stand.post(web, "retry", "flaky", "twice", times=2)
        stand.until(lambda: "twice" in stand.done())
        begun = stand.lines("began", "twice")
        assert [line.attempt for line in begun] == [1, 2, 3]
        assert len({line.call for line in begun}) == 1


def load(stand: Stand, webs: list[Process], calls: int) -> set[str]:
    """Ask for calls from several threads while a process is killed and replaced.

    Gives the names of those that were acknowledged.
    """
    acknowledged: set[str] = set()
    todo = [f"call-{n}" for n in range(calls)]
    half = threading.Event()

    def client(number: int) -> None:
        while todo:
            try:
                name = todo.pop()
            except IndexError:
                return
            web = webs[(number + len(todo)) % len(webs)]
            if stand.post(web, "durable", "anote" if number % 2 else "note", name):
                acknowledged.add(name)
            if len(todo) <= calls // 2:
                half.set()

    clients = [threading.Thread(target=client, args=(n,)) for n in range(len(webs))]
    for each in clients:
        each.start()
    half.wait()
    victim = random.choice(webs)  # noqa: S311 - no secret
    victim.kill()
    webs[webs.index(victim)] = stand.web()
    for each in clients:
        each.join()
    return acknowledged
