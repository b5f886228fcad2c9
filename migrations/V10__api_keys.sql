-- API keys. A key's secret is shown once and kept nowhere: only its hash is.

CREATE TABLE api_keys (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    parent_id uuid,
    name text NOT NULL,
    prefix text NOT NULL,
    hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    CONSTRAINT api_keys_pk PRIMARY KEY (id),
    CONSTRAINT api_keys_hash_unique UNIQUE (hash),
    CONSTRAINT api_keys_user_fk FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT api_keys_parent_fk FOREIGN KEY (parent_id) REFERENCES api_keys (id) ON DELETE CASCADE,
    CONSTRAINT api_keys_scopes_check CHECK (scopes <@ ARRAY['read', 'write', 'admin'])
);
COMMENT ON TABLE api_keys IS 'A revoked key is a row less.';
COMMENT ON COLUMN api_keys.parent_id IS 'The key that made this one, and takes it along when it is revoked.';
COMMENT ON COLUMN api_keys.prefix IS 'The beginning of the key: for people, in lists.';
COMMENT ON COLUMN api_keys.hash IS 'SHA-256 of the whole key.';
COMMENT ON COLUMN api_keys.last_used_at IS 'To a minute.';
CREATE INDEX api_keys_by_user ON api_keys (user_id, id);
CREATE INDEX api_keys_by_parent ON api_keys (parent_id) WHERE parent_id IS NOT NULL;
