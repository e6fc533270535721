-- Files that come in parts; and equal bytes of a tenant found again.

create table uploads (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    filename text not null,
    purpose text not null,
    mime_type text not null,
    bytes bigint not null check (bytes > 0),
    reading jsonb,
    file_lifetime_seconds double precision check (file_lifetime_seconds > 0),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    state text not null default 'pending' check (state in ('pending', 'completed', 'cancelled')),
    file_id uuid,
    part_ids uuid[],
    check ((state = 'completed') = (file_id is not null)),
    check ((state = 'completed') = (part_ids is not null))
);
comment on table uploads is
    'Files that come in parts. Expired is one that is pending after expires_at. file_id is kept when the file is deleted; '
    'part_ids tells a completion that is asked for again from another one.';
create index uploads_by_age on uploads (expires_at);
create index uploads_by_tenant on uploads (tenant_id, id);

create table upload_parts (
    id uuid primary key,
    upload_id uuid not null references uploads on delete cascade,
    tenant_id uuid not null references tenants,
    blob_id uuid not null references blobs,
    created_at timestamptz not null default now()
);
comment on table upload_parts is 'Parts of uploads that are not completed; their order is told by the completion.';
create index upload_parts_by_upload on upload_parts (upload_id, id);
create index upload_parts_by_blob on upload_parts (blob_id);

create index blobs_by_content on blobs (tenant_id, sha256) where state = 'live';

update schema_marker set version = greatest(version, 40);
