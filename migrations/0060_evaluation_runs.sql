-- Further evaluations of a job, side by side; and answers to held-out prompts while they come in.

alter table tasks drop constraint tasks_kind_check;
alter table tasks add constraint tasks_kind_check check (kind in ('validate', 'train', 'evaluate'));

create table evaluation_runs (
    task_id uuid primary key references tasks on delete cascade,
    tenant_id uuid not null references tenants,
    job_id uuid not null references jobs on delete cascade,
    settings jsonb not null,
    progress jsonb,
    report jsonb,
    error jsonb
);
comment on table evaluation_runs is
    'What an `evaluate` task is to do and what came of it. Where it stands is where its task stands; the job stays succeeded.';
create index evaluation_runs_by_job on evaluation_runs (job_id);

create table evaluation_answers (
    task_id uuid not null references tasks on delete cascade,
    line bigint not null check (line > 0),
    answerer text not null check (answerer in ('base', 'tuned')),
    tenant_id uuid not null references tenants,
    prompt text not null,
    reference text not null,
    answer text not null,
    ended boolean not null,
    primary key (task_id, line, answerer)
);
comment on table evaluation_answers is
    'Answers given so far by a task that is not done: a later attempt does not ask again. They go once the report has them.';

update schema_marker set version = greatest(version, 60);
