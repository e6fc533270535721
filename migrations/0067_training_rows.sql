-- What a job's training rows show, for the list of rows to mend.

create table job_training_rows (
    job_id uuid primary key references jobs on delete cascade,
    tenant_id uuid not null references tenants,
    found jsonb not null
);
comment on table job_training_rows is
    'The training rows nearest to each held-out row, and those with errors of their own; texts stay in the file.';

update schema_marker set version = greatest(version, 67);
