-- How a file is read, where its upload said so.

alter table files add column reading jsonb;
comment on column files.reading is
    'Layout, format, column names and switched-off rules that the upload asked for; a job reads the file alike.';
