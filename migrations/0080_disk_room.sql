-- Room on disks: what tasks need of it, and what workers have. And which schema each worker knows.

alter table tasks
    add column needs_work_bytes bigint not null default 0 check (needs_work_bytes >= 0),
    add column needs_stored_bytes bigint not null default 0 check (needs_stored_bytes >= 0);
comment on column tasks.needs_work_bytes is
    'Reserved in the folder of an attempt for as long as the task runs: datasets, checkpoints, exports.';
comment on column tasks.needs_stored_bytes is
    'Reserved in the blob store for as long as the task runs: less with each checkpoint that lies there already.';

alter table workers
    add column free_work_bytes bigint check (free_work_bytes >= 0),
    add column free_stored_bytes bigint check (free_stored_bytes >= 0),
    add column shares_disk boolean not null default false,
    add column known_schema integer;
comment on column workers.free_work_bytes is
    'Free on the disk of the attempts'' folders, with what attempts of this host hold there; null for a worker that does '
    'not say.';
comment on column workers.shares_disk is 'Whether the attempts'' folders and the blob store lie on the same disk.';

comment on column workers.known_schema is
    'The newest version of the schema that it can work with; null for one from before this was said. Older than the '
    'schema, it claims nothing.';

create function has_room(
    needs_work bigint, needs_stored bigint, room_work bigint, room_stored bigint, shares_disk boolean
) returns boolean
language sql immutable as $$
    select needs_work <= coalesce(room_work, 9223372036854775807)
       and needs_stored <= coalesce(room_stored, 9223372036854775807)
       and (not shares_disk or needs_work::numeric + needs_stored <= least(room_work, room_stored))
$$;
comment on function has_room is 'Whether a task fits beside what is reserved; where one disk holds both, their sum counts.';

create view disk_reservations as
    select w.host, coalesce(sum(t.needs_work_bytes), 0)::bigint as work_bytes,
           coalesce(sum(t.needs_stored_bytes), 0)::bigint as stored_bytes
    from tasks t
    join task_lease l on l.task_id = t.id
    join workers w on w.id = l.worker_id
    where t.state = 'running'
    group by w.host;
comment on view disk_reservations is 'What running tasks may still write, by the host that runs them.';

update schema_marker set version = greatest(version, 80);
