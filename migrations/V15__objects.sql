-- Documents that arrive as objects in buckets.

CREATE TABLE objects (
    id bytea NOT NULL,
    last_sequencer text COLLATE "C" NOT NULL,
    last_version text,
    noted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT objects_pk PRIMARY KEY (id)
);
COMMENT ON TABLE objects IS 'The newest event of each object that was acted on. Outlives the document: a late event must not bring it back.';
COMMENT ON COLUMN objects.id IS 'SHA-256 of bucket and key: of what was deleted, no name stays.';
COMMENT ON COLUMN objects.last_sequencer IS 'Padded to one length; an event with a lesser one is late, with an equal one it is a duplicate.';
COMMENT ON COLUMN objects.last_version IS 'The version that event spoke of; NULL in a bucket that keeps none.';

ALTER TABLE document_revisions
    ADD COLUMN object_bucket text,
    ADD COLUMN object_key text,
    ADD COLUMN object_version text,
    ADD COLUMN object_etag text,
    ADD COLUMN read_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN read_chunks integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN document_revisions.object_key IS 'With bucket, version and etag: where the text can be read again. While it is only claimed, anybody can go on with it.';
COMMENT ON COLUMN document_revisions.read_bytes IS 'How far the object is read and its chunks stored: where a later invocation goes on reading.';
COMMENT ON COLUMN document_revisions.read_chunks IS 'The chunks stored so far.';

-- An object that is too large or no document is not read, so nobody knows its hash.
COMMENT ON COLUMN erasures.deleted_by IS 'Who deleted this document; NULL when it went with its knowledge base, its account or its object.';

ALTER TABLE document_revisions ALTER COLUMN content_hash DROP NOT NULL;
ALTER TABLE document_revisions ADD CONSTRAINT document_revisions_hash_check CHECK (state = 'failed' OR content_hash IS NOT NULL);

CREATE INDEX document_revisions_readable ON document_revisions (next_attempt_at)
    WHERE state = 'claimed' AND object_key IS NOT NULL;
