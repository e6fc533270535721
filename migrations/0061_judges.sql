-- Judges: what they said before; and the evaluation that a job asks for itself.

create table judge_replies (
    tenant_id uuid not null references tenants,
    key bytea not null check (octet_length(key) = 32),
    reply text not null,
    tokens bigint not null check (tokens >= 0),
    created_at timestamptz not null default now(),
    primary key (tenant_id, key)
);
comment on table judge_replies is 'Replies of judges by the hash of judge and question; they go after 90 days.';
create index judge_replies_by_age on judge_replies (created_at);

alter table evaluation_runs add column is_of_job boolean not null default false;
comment on column evaluation_runs.is_of_job is 'The job asked for it itself: its report becomes the job''s own, too.';

update schema_marker set version = greatest(version, 61);
