-- What slows down guessing, and what proves that a mailbox is somebody's.

-- Not in the write-ahead log: after a crash everybody starts with a full quota, which harms nobody.
CREATE UNLOGGED TABLE rate_limits (
    key text NOT NULL,
    full_at timestamptz NOT NULL,
    CONSTRAINT rate_limits_pk PRIMARY KEY (key)
);
COMMENT ON TABLE rate_limits IS 'Quotas in use, by the generic cell rate algorithm: one row for each client, however many requests.';
COMMENT ON COLUMN rate_limits.full_at IS 'When the whole quota is there again; from then on the row says nothing.';
CREATE INDEX rate_limits_by_time ON rate_limits (full_at);

CREATE TABLE login_attempts (
    account bytea NOT NULL,
    address text NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    open_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    succeeded_at timestamptz,
    CONSTRAINT login_attempts_pk PRIMARY KEY (account, address)
);
COMMENT ON TABLE login_attempts IS 'Who tried to log in to what, from where. For addresses without an account too: they must look the same.';
COMMENT ON COLUMN login_attempts.account IS 'SHA-256 of the e-mail address that was tried.';
COMMENT ON COLUMN login_attempts.failures IS 'Attempts since the last one that succeeded.';
COMMENT ON COLUMN login_attempts.open_at IS 'Before then no further attempt is looked at.';
COMMENT ON COLUMN login_attempts.succeeded_at IS 'Makes the address a known one of the account.';
CREATE INDEX login_attempts_by_time ON login_attempts (last_at);

ALTER TABLE users ADD COLUMN email_verified_at timestamptz;
COMMENT ON COLUMN users.email_verified_at IS 'When a code that was sent to the address came back; NULL: it may be anybody''s.';

CREATE TABLE email_codes (
    code_hash bytea NOT NULL,
    user_id uuid NOT NULL,
    purpose text NOT NULL,
    email text NOT NULL,
    password_hash text,
    display_name text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT email_codes_pk PRIMARY KEY (code_hash),
    CONSTRAINT email_codes_user_fk FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT email_codes_purpose_check CHECK (purpose IN ('verify', 'change', 'reset'))
);
COMMENT ON TABLE email_codes IS 'Codes that were sent by mail. A code that was used is a row less.';
COMMENT ON COLUMN email_codes.code_hash IS 'SHA-256 of 128 random bits.';
COMMENT ON COLUMN email_codes.email IS 'Where it was sent.';
COMMENT ON COLUMN email_codes.password_hash IS 'The password of the registration that this code confirms: who registers a stranger''s address first must not keep it.';
COMMENT ON COLUMN email_codes.display_name IS 'Likewise.';
CREATE INDEX email_codes_by_user ON email_codes (user_id, purpose);
