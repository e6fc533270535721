-- Webhooks: where to, what happened, and how telling it went.

create table webhook_endpoints (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    name text not null check (name <> ''),
    url text not null,
    event_types text[] not null check (cardinality(event_types) > 0),
    secret text not null,
    previous_secret text,
    previous_until timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check ((previous_secret is null) = (previous_until is null))
);
comment on table webhook_endpoints is
    'Where a tenant wants to be told. Secrets are kept as they are, because signing needs them.';
create index webhook_endpoints_by_tenant on webhook_endpoints (tenant_id, id);

create table webhook_events (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    type text not null,
    object_id text not null,
    created_at timestamptz not null default now()
);
comment on table webhook_events is 'What happened, where an endpoint wanted to know; the object as clients know it.';
create index webhook_events_by_age on webhook_events (created_at);

create table webhook_deliveries (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    endpoint_id uuid not null references webhook_endpoints on delete cascade,
    event_id uuid not null references webhook_events on delete cascade,
    state text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
    attempts integer not null default 0 check (attempts >= 0),
    tries integer not null default 0 check (tries >= 0),
    due_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    unique (endpoint_id, event_id),
    check ((state = 'pending') = (finished_at is null))
);
comment on table webhook_deliveries is
    'One event for one endpoint. A sender takes it by raising attempts and putting due_at off, and may write what became '
    'of it only at that count: the row is its own lease. tries counts from the last replay.';
create index webhook_deliveries_due on webhook_deliveries (due_at) where state = 'pending';
create index webhook_deliveries_by_event on webhook_deliveries (event_id);

create table webhook_attempts (
    delivery_id uuid not null references webhook_deliveries on delete cascade,
    attempt integer not null,
    tenant_id uuid not null references tenants,
    ended_at timestamptz not null default now(),
    status_code integer,
    error text,
    duration_ms bigint not null check (duration_ms >= 0),
    primary key (delivery_id, attempt),
    check ((status_code is null) = (error is not null))
);
comment on table webhook_attempts is 'The log of deliveries.';

create function announce_webhook_event(tenant uuid, event_type text, object text) returns void
language sql as $$
    with wanted as (
        select id from webhook_endpoints where tenant_id = tenant and event_type = any(event_types)
    ),
    event as (
        insert into webhook_events (id, tenant_id, type, object_id)
        select gen_random_uuid(), tenant, event_type, object
        where exists (select from wanted)
        returning id
    )
    insert into webhook_deliveries (id, tenant_id, endpoint_id, event_id)
    select gen_random_uuid(), tenant, wanted.id, event.id from event, wanted
$$;

create function announce_job_end() returns trigger
language plpgsql as $$
begin
    perform announce_webhook_event(
        new.tenant_id, 'fine_tuning.job.' || new.status, 'ftjob-' || replace(new.id::text, '-', '')
    );
    return null;
end
$$;
comment on function announce_job_end is
    'In the database, because a job is ended by several statements, and none may forget to tell.';
create trigger job_end_is_announced
    after update of status on jobs
    for each row
    when (old.status is distinct from new.status and new.status in ('succeeded', 'failed', 'cancelled'))
    execute function announce_job_end();

update schema_marker set version = greatest(version, 15);
