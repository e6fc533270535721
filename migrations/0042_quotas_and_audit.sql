-- What a tenant may use, and who changed what.

create table tenant_quotas (
    tenant_id uuid primary key references tenants,
    open_jobs integer check (open_jobs >= 0),
    running_jobs integer check (running_jobs >= 0),
    stored_bytes bigint check (stored_bytes >= 0),
    trained_tokens_a_month bigint check (trained_tokens_a_month >= 0),
    requests_per_second integer check (requests_per_second > 0)
);
comment on table tenant_quotas is
    'The operator''s limits; null, or no row, is none. Open jobs are those that have not ended; tokens count in the month, '
    'by UTC, in which their job ended.';

create index blobs_by_tenant on blobs (tenant_id) where state = 'live';
create index jobs_open on jobs (tenant_id) where finished_at is null;
create index jobs_ended on jobs (tenant_id, finished_at) where finished_at is not null;

create table audit_log (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    api_key_id uuid references api_keys,
    request_id text not null,
    method text not null,
    path text not null,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    status integer,
    check ((status is null) = (finished_at is null))
);
comment on table audit_log is
    'One row a request that may change something, written before it and completed after it. A row that was never completed '
    'is a request whose process died.';
create index audit_log_by_tenant on audit_log (tenant_id, id);
create index audit_log_by_age on audit_log (started_at);

update schema_marker set version = greatest(version, 42);
