"""The kill suite: what an engine must survive, with processes killed for real (F2).

An engine joins with a test file of its own:

    from killing.cases import KillCases
    from killing.engine import Engine

    @contextmanager
    def place(folder):
        ...  # a queue of its own, cleaned up afterwards
        yield {"POSTLUDE_QUEUE": "celery+amqp://..."}

    class TestCelery(KillCases):
        engine = Engine("celery", place, leases=False, recovery=10.0)
"""
