-- Sessions: a login, and the refresh tokens that follow from it. A session that has ended is a row less.

CREATE TABLE sessions (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    family_hash bytea NOT NULL,
    token_hash bytea NOT NULL,
    previous_hash bytea,
    link bytea,
    rotated_at timestamptz,
    address text,
    user_agent text,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT sessions_pk PRIMARY KEY (id),
    CONSTRAINT sessions_family_unique UNIQUE (family_hash),
    CONSTRAINT sessions_user_fk FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT sessions_rotation_check
        CHECK ((rotated_at IS NULL) = (previous_hash IS NULL) AND (rotated_at IS NULL) = (link IS NULL))
);
COMMENT ON TABLE sessions IS 'Refresh-token families. No token stands here, and none can be made from what does.';
COMMENT ON COLUMN sessions.family_hash IS 'SHA-256 of the half that all tokens of the session have in common: who has it, has or had one of them.';
COMMENT ON COLUMN sessions.token_hash IS 'SHA-256 of the other half of the token that holds.';
COMMENT ON COLUMN sessions.previous_hash IS 'Of the one before it, which is good for a few seconds more.';
COMMENT ON COLUMN sessions.link IS 'Random: the key by which the token that holds follows from the previous one (HMAC-SHA-256). Of no use without it.';
COMMENT ON COLUMN sessions.rotated_at IS 'When the token that holds was issued; NULL while it is the first.';
COMMENT ON COLUMN sessions.address IS 'Of the last use, as the gateway saw it.';
COMMENT ON COLUMN sessions.expires_at IS 'At the latest, however much it is used.';
CREATE INDEX sessions_by_user ON sessions (user_id, last_used_at);
