"""The statements of the engine on Procrastinate, by the functions of its schema 3.4."""

PUT = (
    "select unnest(procrastinate_defer_jobs_v1(array("
    "select row(%(queue)s, %(task)s, 0, null, key, args::jsonb, "
    "case when wait > 0 then now() + make_interval(secs => wait) end)"
    "::procrastinate_job_to_defer_v1 "
    "from unnest(%(keys)s::text[], %(args)s::text[], %(waits)s::float8[]) "
    "with ordinality as job (key, args, wait, place) order by place))) as id"
)
WRITE = (
    "select unnest(procrastinate_defer_jobs_v1(array[row(cast(:queue as text), "
    "cast(:task as text), 0, null, cast(:key as text), cast(:args as jsonb), "
    "case when cast(:wait as float8) > 0 then "
    "now() + make_interval(secs => cast(:wait as float8)) end)"
    "::procrastinate_job_to_defer_v1]))"
)
LOCK_KEY = "select pg_advisory_xact_lock(hashtextextended(cast(:key as text), 0))"
KNOWS_KEY = (
    "select 1 from procrastinate_jobs where queueing_lock = cast(:key as text) limit 1"
)
TAKE = (
    "update procrastinate_jobs set status = 'doing', worker_id = %(me)s "
    "where id = %(id)s and attempts = %(run)s and status = 'todo' "
    "returning id, args, attempts"
)
FETCH = (
    "select id, args, attempts "
    "from procrastinate_fetch_job_v2(array[%(queue)s], %(me)s) where id is not null"
)


def _of_mine(statement: str) -> str:
    """Name the jobs of tokens `mine` in *statement*, locked."""
    return (
        "with mine as (select job.id, status, queueing_lock, worker_id "
        "from procrastinate_jobs as job "
        "join unnest(%(ids)s::bigint[], %(runs)s::int[]) as held (id, run) "
        "on job.id = held.id and job.attempts = held.run "
        "where status in ('todo', 'doing') for update of job) "
    ) + statement


FINISH = _of_mine(
    "select procrastinate_finish_job_v1(id, 'succeeded', "
    "queueing_lock is null or status = 'todo') from mine"
)
AGAIN = _of_mine(
    "select procrastinate_retry_job_v2(id, now() + make_interval(secs => %(pause)s), "
    "null, null, null) from mine where status = 'doing'"
)
NOTE = (
    "update procrastinate_jobs set args = args || jsonb_build_object('failure', "
    "%(failure)s::text) where id = %(id)s and attempts = %(run)s and status = 'doing'"
)
FAIL = _of_mine(
    "select procrastinate_finish_job_v1(id, 'failed', false) from mine "
    "where status = 'doing'"
)
HOLD = _of_mine(
    "update procrastinate_jobs as job "
    "set scheduled_at = now() + make_interval(secs => %(lease)s) "
    "from mine where job.id = mine.id and mine.status = 'todo' "
    "returning job.id || '/' || job.attempts as token"
)
RUNNING = _of_mine(
    "select job.id || '/' || job.attempts as token from procrastinate_jobs as job "
    "join mine on job.id = mine.id where mine.status = 'doing'"
)
RELEASE = _of_mine(
    "update procrastinate_jobs as job set scheduled_at = "
    "now() + make_interval(secs => coalesce((job.args->>'delay')::float8, 0)) "
    "from mine where job.id = mine.id and mine.status = 'todo'"
)
RETRY = (
    "update procrastinate_jobs set status = 'todo', scheduled_at = null, "
    "args = (args - 'failure') || jsonb_build_object('runs', attempts + 1) "
    "where status = 'failed' and task_name = %(task)s and args->>'id' = any(%(ids)s) "
    "returning id"
)
STALLED = (
    "select job.id, args, attempts, worker_id from procrastinate_jobs as job "
    "left join procrastinate_workers as worker on worker.id = job.worker_id "
    "where status = 'doing' and queue_name = %(queue)s and task_name = %(task)s "
    "and (worker.id is null "
    "or last_heartbeat < now() - make_interval(secs => %(lease)s)) "
    "order by job.id limit 100 for update of job skip locked"
)
STAY = _of_mine(
    "update procrastinate_jobs as job set worker_id = %(me)s from mine "
    "where job.id = mine.id and mine.status = 'doing' and mine.worker_id is null"
)
ALIVE = (
    "update procrastinate_workers set last_heartbeat = now() where id = %(me)s "
    "returning id"
)
