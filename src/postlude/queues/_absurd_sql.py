"""The statements of the engine on Absurd: its functions, and its tables, of 0.5."""

SPAWN = (
    "select task_id, run_id, created from absurd.spawn_task('postlude', 'postlude', "
    "cast(:params as jsonb), cast(:options as jsonb))"
)
WAIT = (
    "update absurd.r_postlude set available_at = absurd.current_time() "
    "+ make_interval(secs => cast(:wait as float8)) "
    "where run_id = cast(:run as uuid)"
)
TAKE = (
    "with run as (update absurd.r_postlude set state = 'running', claimed_by = %(me)s, "
    "claim_expires_at = absurd.current_time() + make_interval(secs => %(lease)s), "
    "started_at = absurd.current_time(), available_at = absurd.current_time() "
    "where run_id = %(run)s::uuid and state in ('pending', 'sleeping') "
    "returning run_id, task_id, attempt) "
    "update absurd.t_postlude as task set state = 'running', "
    "attempts = greatest(task.attempts, run.attempt), last_attempt_run = run.run_id, "
    "first_started_at = coalesce(first_started_at, absurd.current_time()) "
    "from run where task.task_id = run.task_id "
    "returning run.run_id, task.task_id, run.attempt, params"
)
CLAIM = (
    "select run_id, task_id, attempt, params "
    "from absurd.claim_task('postlude', %(me)s, %(lease)s, %(most)s)"
)
EXHAUSTED = (
    "update absurd.r_postlude as run set failure_reason = "
    "run.failure_reason || jsonb_build_object('name', 'ProcessDied') "
    "from absurd.t_postlude as task where task.last_attempt_run = run.run_id "
    "and task.state = 'failed' and run.state = 'failed' "
    "and run.failure_reason->>'name' = '$ClaimTimeout' "
    "returning run.run_id, run.task_id, run.attempt, params, "
    "run.failure_reason->>'workerId' as worker"
)
HOLD = (
    "update absurd.r_postlude set available_at = absurd.current_time() "
    "+ make_interval(secs => %(lease)s) where run_id = any(%(runs)s::uuid[]) "
    "and state = 'pending' returning run_id"
)
KEEP = (
    "update absurd.r_postlude set claim_expires_at = absurd.current_time() "
    "+ make_interval(secs => %(lease)s) where run_id = any(%(runs)s::uuid[]) "
    "and state = 'running' returning run_id"
)
RELEASE = (
    "update absurd.r_postlude as run set available_at = absurd.current_time() "
    "+ make_interval(secs => coalesce((params->>'delay')::float8, 0)) "
    "from absurd.t_postlude as task where task.task_id = run.task_id "
    "and run_id = any(%(runs)s::uuid[]) and run.state = 'pending'"
)
COMPLETE = (
    "select absurd.complete_run('postlude', run_id) from (select run_id "
    "from absurd.r_postlude where run_id = any(%(runs)s::uuid[]) "
    "and state = 'running' for update) as mine"
)
CANCEL = (
    "select absurd.cancel_task('postlude', task_id) from (select task_id "
    "from absurd.r_postlude where run_id = any(%(runs)s::uuid[]) "
    "and state in ('pending', 'sleeping') for update) as mine"
)
LAST = (
    "update absurd.t_postlude as task set max_attempts = run.attempt "
    "from absurd.r_postlude as run where run.run_id = %(run)s::uuid "
    "and run.state = 'running' and task.task_id = run.task_id"
)
FAIL = (
    "select absurd.fail_run('postlude', run_id, %(reason)s::jsonb, "
    "absurd.current_time() + make_interval(secs => %(pause)s::float8)) "
    "from (select run_id from absurd.r_postlude where run_id = %(run)s::uuid "
    "and state = 'running' for update) as mine"
)
FAILED = (
    "select task.task_id, run.run_id, run.attempt, params, "
    "failure_reason->>'record' as record, "
    "extract(epoch from failed_at)::float8 as ended "
    "from absurd.t_postlude as task "
    "join absurd.r_postlude as run on run.run_id = task.last_attempt_run "
    "where task.state = 'failed' order by failed_at, task.task_id"
)
FIND_FAILED = (
    "select task_id from absurd.t_postlude "
    "where state = 'failed' and params->>'id' = any(%(ids)s)"
)
RETRY = (
    "select absurd.retry_task('postlude', task_id) from (select task_id "
    "from absurd.t_postlude where state = 'failed' and params->>'id' = any(%(ids)s)) "
    "as found"
)
WAITING = (
    "select task.task_id, run.run_id, run.attempt, params, greatest(0, extract(epoch "
    "from available_at - absurd.current_time()))::float8 as wait "
    "from absurd.t_postlude as task "
    "join absurd.r_postlude as run on run.run_id = task.last_attempt_run "
    "where task.state in ('pending', 'sleeping') order by available_at, run_id"
)
OLD = (
    "select task.task_id from absurd.t_postlude as task "
    "left join absurd.r_postlude as run on run.run_id = task.last_attempt_run "
    "where task.state in ('completed', 'cancelled') "
    "and coalesce(run.completed_at, task.cancelled_at) < absurd.current_time() - "
    "case when idempotency_key is null then interval '1 hour' "
    "else interval '1 day' end limit 10000"
)
DELETE = (
    "delete from absurd.w_postlude where task_id = any(%(tasks)s)",
    "delete from absurd.c_postlude where task_id = any(%(tasks)s)",
    "delete from absurd.r_postlude where task_id = any(%(tasks)s)",
    "delete from absurd.t_postlude where task_id = any(%(tasks)s)",
)
