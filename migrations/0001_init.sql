-- The first schema. Every row has its tenant; states are held by checks; times are the database's own.

create table schema_marker (
    only_row boolean primary key default true check (only_row),
    version integer not null check (version > 0)
);
comment on table schema_marker is
    'One row: the version that claims compare, so that a worker older than the schema does not claim.';
insert into schema_marker (version) values (1);

create table tenants (
    id uuid primary key,
    name text not null unique check (name <> ''),
    weight double precision not null default 1 check (weight > 0),
    created_at timestamptz not null default now()
);
comment on table tenants is 'Who owns rows. The weight is the operator''s: a tenant of weight 2 gets twice the share.';
insert into tenants (id, name) values ('00000000-0000-7000-8000-000000000001', 'default');

create table tenant_shares (
    tenant_id uuid primary key references tenants,
    start_tag double precision not null default 0,
    finish_tag double precision not null default 0
) with (fillfactor = 50);
comment on table tenant_shares is
    'Virtual times of start-time fair queuing: the tags of the last task that each tenant was given.';

create table api_keys (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    name text not null check (name <> ''),
    lookup text not null unique,
    secret_sha256 bytea not null check (octet_length(secret_sha256) = 32),
    created_at timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at timestamptz
);
comment on table api_keys is
    'API keys. The lookup part of a secret finds the row; the hash of the whole secret is compared in constant time.';

create table blobs (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    state text not null default 'pending' check (state in ('pending', 'live', 'deleting')),
    bytes bigint check (bytes >= 0),
    sha256 bytea check (octet_length(sha256) = 32),
    created_at timestamptz not null default now(),
    check (state <> 'live' or (bytes is not null and sha256 is not null))
);
comment on table blobs is
    'Stored bytes by key. Pending before the first byte; live once a row refers to them; deleting while they are removed.';
create index blobs_by_age on blobs (created_at);

create table files (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    filename text not null,
    purpose text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    status text not null check (status in ('uploaded', 'processed', 'error')),
    status_details text,
    blob_id uuid not null references blobs,
    lint jsonb,
    findings_blob_id uuid references blobs
);
comment on table files is 'Files that were uploaded or produced. A row exists once its bytes are stored whole.';
create index files_by_tenant on files (tenant_id, id);
create index files_by_blob on files (blob_id);
create index files_by_findings on files (findings_blob_id) where findings_blob_id is not null;
create index files_by_expiry on files (expires_at) where expires_at is not null;

create table base_models (
    id uuid primary key,
    name text not null unique check (name <> ''),
    path text not null,
    source text,
    license text,
    sha256 text not null check (length(sha256) = 64),
    facts jsonb not null,
    created_at timestamptz not null default now()
);
comment on table base_models is
    'Models that jobs start from. The operator''s, seen by every tenant: the one kind of object without an owner.';

create table jobs (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    status text not null
        check (status in ('validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled')),
    paused boolean not null default false,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    request jsonb not null,
    metadata jsonb,
    seed integer not null check (seed >= 0),
    base_model_id uuid references base_models on delete set null,
    base_model text not null,
    base_model_sha256 text not null,
    training_file uuid not null,
    training_blob_id uuid not null references blobs,
    validation_file uuid,
    validation_blob_id uuid references blobs,
    effective jsonb,
    dataset jsonb,
    estimate jsonb,
    error jsonb,
    waiting_reason text,
    trained_tokens bigint check (trained_tokens >= 0),
    fine_tuned_model text,
    result_files uuid[] not null default '{}',
    evaluation jsonb,
    parity jsonb,
    check ((validation_file is null) = (validation_blob_id is null)),
    check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
    check (not (paused and status not in ('validating_files', 'queued')))
);
comment on table jobs is
    'Fine-tuning jobs as clients see them. File ids are kept when files are deleted; blobs stay while a job refers to them.';
create index jobs_by_tenant on jobs (tenant_id, id);
create index jobs_by_training_blob on jobs (training_blob_id);
create index jobs_by_validation_blob on jobs (validation_blob_id) where validation_blob_id is not null;
create index jobs_by_metadata on jobs using gin (metadata jsonb_path_ops);
create index jobs_by_base_model on jobs (base_model_id) where finished_at is null;

create table job_live (
    job_id uuid primary key references jobs on delete cascade,
    tenant_id uuid not null references tenants,
    event_seq bigint not null default 0 check (event_seq >= 0),
    progress jsonb
) with (fillfactor = 50);
comment on table job_live is
    'The narrow, often written part of a job. Locking its row orders a job''s events: numbers have no gaps and follow commits.';

create table tuned_models (
    tenant_id uuid not null references tenants,
    name text not null,
    base_model text not null,
    job_id uuid not null references jobs on delete cascade,
    created_at timestamptz not null default now(),
    primary key (tenant_id, name)
);
comment on table tuned_models is 'Models that succeeded jobs made, by public name.';
create index tuned_models_by_job on tuned_models (job_id);

create table tasks (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    kind text not null check (kind in ('validate', 'train')),
    job_id uuid not null references jobs on delete cascade,
    state text not null default 'queued'
        check (state in ('queued', 'held', 'running', 'done', 'failed', 'cancelled')),
    request text check (request in ('pause')),
    priority integer not null default 0,
    attempt integer not null default 0 check (attempt >= 0),
    crashes integer not null default 0 check (crashes >= 0),
    take_backs integer not null default 0 check (take_backs >= 0),
    needs_model text not null,
    needs_memory_bytes bigint check (needs_memory_bytes >= 0),
    final_epoch bigint,
    created_at timestamptz not null default now(),
    queued_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    check (request is null or state = 'running'),
    check ((state in ('done', 'failed', 'cancelled')) = (finished_at is not null))
);
comment on table tasks is
    'Units of leased work. final_epoch is the epoch under which the last holder ended it, so that an end can be sent twice.';
create index tasks_waiting on tasks (tenant_id, priority desc, queued_at, id) where state = 'queued';
create index tasks_running on tasks (tenant_id) where state = 'running';
create index tasks_by_job on tasks (job_id);

create table task_lease (
    task_id uuid primary key references tasks on delete cascade,
    tenant_id uuid not null references tenants,
    epoch bigint not null default 0 check (epoch >= 0),
    worker_id uuid,
    heartbeat_at timestamptz,
    last_line bigint not null default 0 check (last_line >= 0)
) with (fillfactor = 50);
comment on table task_lease is
    'Who runs a task. The epoch rises with every change of holder and never falls; last_line is the highest engine line '
    'recorded under it. No column that a heartbeat changes is indexed, so heartbeats are heap-only updates.';

create table events (
    job_id uuid not null references jobs on delete cascade,
    seq bigint not null check (seq > 0),
    tenant_id uuid not null references tenants,
    id uuid not null,
    created_at timestamptz not null default now(),
    level text not null check (level in ('info', 'warn', 'error')),
    kind text not null check (kind in ('message', 'metrics')),
    message text not null,
    data jsonb,
    once text,
    primary key (job_id, seq)
);
comment on table events is 'What clients read of a job''s course. once is a key that a job''s events may carry a single time.';
create unique index events_once on events (job_id, once) where once is not null;

create table metrics (
    job_id uuid not null references jobs on delete cascade,
    name text not null,
    step integer not null check (step >= 0),
    tenant_id uuid not null references tenants,
    epoch bigint not null,
    value double precision not null,
    recorded_at timestamptz not null default now(),
    primary key (job_id, name, step)
);
comment on table metrics is 'Numbers by step; where a step was repeated, the newer epoch''s number stands.';

create table checkpoints (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    job_id uuid not null references jobs on delete cascade,
    step integer not null check (step >= 0),
    epoch bigint not null,
    metrics jsonb not null,
    created_at timestamptz not null default now(),
    unique (job_id, step)
);
comment on table checkpoints is 'Published checkpoints. One that was made again replaces the one of its step.';

create table checkpoint_files (
    checkpoint_id uuid not null references checkpoints on delete cascade,
    name text not null check (name <> ''),
    tenant_id uuid not null references tenants,
    blob_id uuid not null references blobs,
    primary key (checkpoint_id, name)
);
comment on table checkpoint_files is 'Files of a checkpoint.';
create index checkpoint_files_by_blob on checkpoint_files (blob_id);

create table artifacts (
    job_id uuid not null references jobs on delete cascade,
    name text not null check (name <> ''),
    tenant_id uuid not null references tenants,
    blob_id uuid not null references blobs,
    primary key (job_id, name)
);
comment on table artifacts is 'Files of the adapter of a succeeded job.';
create index artifacts_by_blob on artifacts (blob_id);

create table workers (
    id uuid primary key,
    host text not null,
    version text not null,
    devices jsonb not null,
    threads integer not null check (threads > 0),
    instruction_set text not null,
    free_memory_bytes bigint not null check (free_memory_bytes >= 0),
    models text[] not null,
    registered_at timestamptz not null default now(),
    seen_at timestamptz not null default now()
) with (fillfactor = 50);
comment on table workers is 'Worker processes, the operator''s. One that has not been seen for a lease''s expiry is not alive.';

create table idempotency (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    api_key_id uuid references api_keys,
    route text not null,
    client_key text,
    retry_count integer not null check (retry_count >= 0),
    fingerprint bytea not null check (octet_length(fingerprint) = 32),
    object_id uuid not null,
    created_at timestamptz not null default now()
);
comment on table idempotency is
    'Requests that made an object, written with it in one transaction, so that the same request again gives the same object.';
create unique index idempotency_by_client_key
    on idempotency (tenant_id, api_key_id, route, client_key) nulls not distinct where client_key is not null;
create index idempotency_by_fingerprint on idempotency (tenant_id, route, fingerprint, created_at);
create index idempotency_by_object on idempotency (object_id);
create index idempotency_by_age on idempotency (created_at);
