-- Where workers answer requests to models.

create table serving_endpoints (
    worker_id uuid primary key references workers on delete cascade,
    url text not null check (url <> ''),
    secret text not null check (length(secret) >= 32)
);
comment on table serving_endpoints is
    'Workers that answer, the operator''s. The secret is made anew by each worker process and admits API nodes alone.';

update schema_marker set version = greatest(version, 30);
