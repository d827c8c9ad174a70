"""The statements of the engine on DBOS: its SQL function, and its tables, of 3.4."""

QUEUE = "postlude"
"""The name of the queue; of the application and its version, too: DBOS gives a workflow
to workers of its own application and version only, and a deploy changes neither."""
WORKFLOW = "postlude_run"

ENQUEUE = (
    "select dbos.enqueue_workflow(workflow_name => 'postlude_run', "
    "queue_name => 'postlude', app_version => 'postlude', "
    "application_name => 'postlude', workflow_id => cast(:id as text), "
    "positional_args => array[to_json(cast(:job as text))], delay_until_epoch_ms => "
    "case when cast(:delay as float8) > 0 then cast(ceil(1000 * (extract(epoch from "
    "clock_timestamp()) + cast(:delay as float8))) as bigint) end)"
)
KNOWN = "select 1 from dbos.workflow_status where workflow_uuid = cast(:id as text)"
STARTS = (
    "select recovery_attempts as starts from dbos.workflow_status "
    "where workflow_uuid = %(id)s"
)
FAILED = (
    "select workflow_uuid, recovery_attempts as starts, left(given.inputs, 2000000) "
    "as inputs, seen.error, coalesce(completed_at, updated_at) / 1000.0::float8 "
    "as ended from dbos.workflow_status "
    "left join dbos.workflow_input as given using (workflow_uuid) "
    "left join dbos.workflow_output as seen using (workflow_uuid) "
    "where queue_name = 'postlude' "
    "and status in ('ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') "
    "order by ended, workflow_uuid"
)
TAKE_OUT = (
    "delete from dbos.workflow_status where workflow_uuid = any(%(ids)s) and "
    "status in ('ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') returning workflow_uuid"
)
OLD = (
    "delete from dbos.workflow_status where workflow_uuid in (select workflow_uuid "
    "from dbos.workflow_status where queue_name = 'postlude' "
    "and status in ('SUCCESS', 'CANCELLED') and updated_at < 1000 * extract(epoch "
    "from now() - case when workflow_uuid like 'key:%%' then interval '1 day' "
    "else interval '1 hour' end) limit 10000) returning workflow_uuid"
)
LEFT_OVER = (
    "delete from dbos.workflow_input where workflow_uuid = any(%(ids)s)",
    "delete from dbos.workflow_output where workflow_uuid = any(%(ids)s)",
    "delete from dbos.operation_outputs where workflow_uuid = any(%(ids)s)",
)
"""What belongs to workflows that are gone; DBOS's own way has no foreign keys."""

LOCK = (
    "select pg_advisory_lock(hashtextextended(%(me)s, 0)), "
    "set_config('tcp_keepalives_idle', '5', false), "
    "set_config('tcp_keepalives_interval', '5', false), "
    "set_config('tcp_keepalives_count', '2', false)"
)
"""Be known to live for as long as this connection does: 15 s after its machine."""
OTHERS = (
    "select executor_id from (select distinct executor_id from dbos.workflow_status "
    "where queue_name = 'postlude' and status = 'PENDING' "
    "and executor_id <> %(me)s offset 0) as running "
    "where pg_try_advisory_lock(hashtextextended(executor_id, 0))"
)
UNLOCK = "select pg_advisory_unlock(hashtextextended(%(id)s, 0))"
GIVE_BACK = (
    "update dbos.workflow_status set status = 'ENQUEUED', owner_xid = null, "
    "started_at_epoch_ms = null, updated_at = 1000 * extract(epoch from now()) "
    "where queue_name = 'postlude' and status = 'PENDING' and executor_id = %(id)s "
    "returning workflow_uuid"
)
"""What DBOS does itself for one executor, which it has to be told of."""
STRANGERS = (
    "update dbos.workflow_status as found set status = 'CANCELLED', owner_xid = null, "
    "updated_at = 1000 * extract(epoch from now()) where queue_name = 'postlude' "
    "and status in ('ENQUEUED', 'DELAYED', 'PENDING') and (name is distinct from "
    "'postlude_run' or serialization is distinct from 'portable_json' "
    "or coalesce(class_name, config_name, authenticated_roles) "
    "is not null or coalesce(application_version, 'postlude') <> 'postlude' "
    "or coalesce(application_name, 'postlude') <> 'postlude' or not exists (select "
    "from dbos.workflow_input as given where inputs is not null "
    "and given.workflow_uuid = found.workflow_uuid)) returning name, (select "
    "left(inputs, 200) from dbos.workflow_input as given "
    "where given.workflow_uuid = found.workflow_uuid) as inputs"
)
"""Workflows that DBOS would never begin or never end, so that nobody heard of them."""
