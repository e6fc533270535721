-- Files that were made of other files.

alter table files add column manifest jsonb;
comment on column files.manifest is
    'Of a prepared file: its sources, the steps and what became of the rows. The files of one preparation have the same.';
