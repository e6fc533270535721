-- Projects of an organisation, and models that one project shows to others.

alter table tenants add column organization_id uuid references tenants;
comment on column tenants.organization_id is
    'The organisation that a project belongs to; null for an organisation, which is its own first project.';
create index tenants_by_organization on tenants (organization_id) where organization_id is not null;

create table checkpoint_permissions (
    id uuid primary key,
    tenant_id uuid not null references tenants,
    model text not null,
    project_id uuid not null references tenants,
    created_at timestamptz not null default now(),
    unique (tenant_id, model, project_id),
    foreign key (tenant_id, model) references tuned_models (tenant_id, name) on delete cascade
);
comment on table checkpoint_permissions is 'tenant_id owns the model; project_id is the tenant that may see it.';
create index checkpoint_permissions_by_project on checkpoint_permissions (project_id, model);

update schema_marker set version = greatest(version, 41);
