-- Files that were made of another one by editing its rows.

alter table files
    add column parent_file_id uuid,
    add column version integer not null default 1 check (version > 0);
comment on column files.parent_file_id is 'The file whose rows were edited; kept when that one is deleted.';

update schema_marker set version = greatest(version, 66);
