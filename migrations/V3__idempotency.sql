-- Idempotency keys: a retried request gets the first one's answer.
-- https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/

CREATE TABLE idempotency_keys (
    principal_id uuid NOT NULL,
    operation text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    fence bigint NOT NULL,
    lease_expires_at timestamptz NOT NULL,
    document_id uuid,
    revision integer,
    response_status smallint,
    response_headers jsonb,
    response_body bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pk PRIMARY KEY (principal_id, operation, key),
    CONSTRAINT idempotency_keys_response_check
        CHECK ((response_status IS NULL) = (response_headers IS NULL) AND (response_status IS NULL) = (response_body IS NULL))
);
COMMENT ON COLUMN idempotency_keys.principal_id IS 'Who sent it: keys of two users never meet.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 of the request: the same key with another one is refused.';
COMMENT ON COLUMN idempotency_keys.fence IS 'The fencing token of whoever works on the request.';
COMMENT ON COLUMN idempotency_keys.document_id IS 'With revision: the ingestion that it started, whose activation stores the answer here, whoever completes it.';
COMMENT ON COLUMN idempotency_keys.response_status IS 'NULL while the request is in progress.';
CREATE INDEX idempotency_keys_by_document ON idempotency_keys (document_id, revision) WHERE response_status IS NULL;
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
