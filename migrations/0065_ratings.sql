-- People's ratings of a job's answers.

create table rating_tasks (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    kind text not null check (kind in ('preference', 'scale')),
    job_id uuid not null references jobs on delete cascade,
    with_job_id uuid references jobs on delete cascade,
    instructions text,
    show_reference boolean not null,
    ratings_per_row integer not null check (ratings_per_row > 0),
    equal_rows integer not null check (equal_rows >= 0),
    created_at timestamptz not null default now()
);
comment on table rating_tasks is
    'What raters are asked. Items are copies of answers, so that another evaluation of the job changes none.';
create index rating_tasks_by_tenant on rating_tasks (tenant_id, id);
create index rating_tasks_by_job on rating_tasks (job_id);
create index rating_tasks_by_other_job on rating_tasks (with_job_id) where with_job_id is not null;

create table rating_items (
    id uuid primary key,
    task_id uuid not null references rating_tasks on delete cascade,
    tenant_id uuid not null references tenants,
    place integer not null check (place >= 0),
    line bigint not null check (line > 0),
    prompt text not null,
    reference text not null,
    input jsonb not null,
    first_source text not null check (first_source in ('base', 'tuned', 'with')),
    first_answer text not null,
    second_source text check (second_source in ('base', 'tuned', 'with')),
    second_answer text,
    unique (task_id, place),
    check ((second_source is null) = (second_answer is null))
);
comment on table rating_items is
    'One answer to be scored, or two to choose between; place is the shuffled order, input the prompt as messages.';

create table ratings (
    id uuid primary key,
    item_id uuid not null references rating_items on delete cascade,
    task_id uuid not null references rating_tasks on delete cascade,
    tenant_id uuid not null references tenants,
    api_key_id uuid references api_keys,
    swapped boolean not null,
    expires_at timestamptz,
    rated_at timestamptz,
    skipped boolean not null default false,
    preferred text check (preferred in ('first', 'second', 'tie')),
    score integer check (score between 1 and 5),
    comment text,
    corrected_answer text,
    unique nulls not distinct (item_id, api_key_id),
    check ((rated_at is null) = (expires_at is not null)),
    check (rated_at is null or num_nonnulls(preferred, score) = case when skipped then 0 else 1 end)
);
comment on table ratings is
    'A rating, or an item that a rater holds until expires_at. swapped: the second answer stood first. The rater is the key; '
    'null is the caller of a service without keys.';
create index ratings_by_task on ratings (task_id, id);

update schema_marker set version = greatest(version, 65);
