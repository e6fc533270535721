-- What a key may do, until when, and which key it replaced.

alter table api_keys
    add column scopes text[] not null default '{read,write,rate,admin}'
        check (cardinality(scopes) > 0 and scopes <@ '{read,write,rate,admin}'::text[]),
    add column expires_at timestamptz,
    add column rotated_from uuid references api_keys;
comment on column api_keys.scopes is 'Keys from before scopes could do everything, and still can.';
comment on column api_keys.rotated_from is 'The key that this one replaced; both work until that one expires.';

update schema_marker set version = greatest(version, 14);
