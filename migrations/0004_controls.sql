-- What a person can ask of a job beside pause and cancel; where its engines crashed; what they last said.

alter table jobs
    add column priority integer not null default 0 check (priority between -100 and 100),
    add column retry_of uuid references jobs on delete set null;
comment on column jobs.priority is 'Within the tenant: a higher one starts first. Copied to the job''s tasks.';
create index jobs_by_retry on jobs (retry_of) where retry_of is not null;
create index jobs_by_finish on jobs (finished_at) where finished_at is not null;

alter table tasks add column crash_step integer check (crash_step >= 0);
comment on column tasks.crash_step is
    'The furthest step at which an engine of this task crashed. A crash beyond it counts as the first again.';

create table attempt_logs (
    job_id uuid not null references jobs on delete cascade,
    task_id uuid not null,
    epoch bigint not null,
    tenant_id uuid not null references tenants,
    attempt integer not null check (attempt >= 0),
    recorded_at timestamptz not null default now(),
    lines text[] not null,
    primary key (job_id, task_id, epoch)
);
comment on table attempt_logs is 'The last lines that each attempt''s engine wrote on standard error.';

update schema_marker set version = greatest(version, 4);
