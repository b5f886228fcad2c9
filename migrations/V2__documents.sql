-- Documents, their revisions and chunks, and what is still to be removed from Qdrant. No vector stands here.

-- Fencing tokens: whoever takes over a lease draws a higher one, and every later write names it.
CREATE SEQUENCE fencing_tokens AS bigint;

CREATE TABLE documents (
    id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    source_uri text NOT NULL,
    title text,
    attributes jsonb NOT NULL DEFAULT '{}',
    active_revision integer,
    latest_revision integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT documents_pk PRIMARY KEY (id),
    CONSTRAINT documents_source_unique UNIQUE (knowledge_base_id, source_uri),
    CONSTRAINT documents_knowledge_base_fk FOREIGN KEY (knowledge_base_id) REFERENCES knowledge_bases (id),
    CONSTRAINT documents_attributes_check CHECK (jsonb_typeof(attributes) = 'object')
);
COMMENT ON COLUMN documents.source_uri IS 'Where it came from; names it within its knowledge base.';
COMMENT ON COLUMN documents.title IS 'Of the active revision; before the first activation, of the staged one.';
COMMENT ON COLUMN documents.attributes IS 'The user''s own keys and values, as of the active revision.';
COMMENT ON COLUMN documents.active_revision IS 'The revision that queries see; NULL until the first is complete in both stores.';
COMMENT ON COLUMN documents.latest_revision IS 'The highest number ever drawn: numbers are never used again.';
CREATE INDEX documents_by_knowledge_base ON documents (knowledge_base_id, id);

CREATE TABLE document_revisions (
    document_id uuid NOT NULL,
    number integer NOT NULL,
    state text NOT NULL,
    title text,
    media_type text NOT NULL,
    attributes jsonb NOT NULL DEFAULT '{}',
    content_hash bytea NOT NULL,
    size_bytes bigint NOT NULL,
    chunks_total integer,
    chunks_reused integer,
    chunks_embedded integer NOT NULL DEFAULT 0,
    embedded_through integer NOT NULL DEFAULT -1,
    fence bigint NOT NULL,
    lease_expires_at timestamptz NOT NULL,
    attempt integer NOT NULL DEFAULT 1,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    failure_code text,
    failure_detail text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT document_revisions_pk PRIMARY KEY (document_id, number),
    CONSTRAINT document_revisions_document_fk FOREIGN KEY (document_id) REFERENCES documents (id) ON DELETE CASCADE,
    CONSTRAINT document_revisions_state_check CHECK (state IN ('staged', 'active', 'retired', 'failed'))
);
COMMENT ON COLUMN document_revisions.content_hash IS 'SHA-256 of the source as it was sent.';
COMMENT ON COLUMN document_revisions.size_bytes IS 'Of the source as it was sent.';
COMMENT ON COLUMN document_revisions.chunks_total IS 'NULL until the chunks are staged: before that, only the client has the text.';
COMMENT ON COLUMN document_revisions.chunks_reused IS 'Chunks that kept their id and vector from the active revision.';
COMMENT ON COLUMN document_revisions.chunks_embedded IS 'New chunks whose vectors Qdrant has acknowledged.';
COMMENT ON COLUMN document_revisions.embedded_through IS 'New chunks up to this ordinal are in Qdrant: where a later invocation resumes.';
COMMENT ON COLUMN document_revisions.fence IS 'The holder''s fencing token; a write that names another changes nothing.';
COMMENT ON COLUMN document_revisions.lease_expires_at IS 'From then on anyone may take the work over.';
COMMENT ON COLUMN document_revisions.next_attempt_at IS 'Before then nobody takes it over unasked (backoff).';
-- One revision at a time is worked on, one answers queries.
CREATE UNIQUE INDEX document_revisions_staged_unique ON document_revisions (document_id) WHERE state = 'staged';
CREATE UNIQUE INDEX document_revisions_active_unique ON document_revisions (document_id) WHERE state = 'active';
CREATE INDEX document_revisions_unfinished ON document_revisions (next_attempt_at) WHERE state = 'staged';

CREATE TABLE chunk_metadata (
    id uuid NOT NULL,
    document_id uuid NOT NULL,
    first_revision integer NOT NULL,
    text text NOT NULL,
    content_hash bytea NOT NULL,
    token_count integer NOT NULL,
    CONSTRAINT chunk_metadata_pk PRIMARY KEY (id),
    CONSTRAINT chunk_metadata_document_fk FOREIGN KEY (document_id) REFERENCES documents (id) ON DELETE CASCADE
);
COMMENT ON COLUMN chunk_metadata.id IS 'Also the id of its Qdrant point. Committed here before the point is written; never used again.';
COMMENT ON COLUMN chunk_metadata.first_revision IS 'The revision that brought it in, and embedded it.';
COMMENT ON COLUMN chunk_metadata.content_hash IS 'SHA-256 of what was embedded (heading path and text): equal means the vector still holds.';
CREATE INDEX chunk_metadata_by_document ON chunk_metadata (document_id, first_revision);

CREATE TABLE chunk_positions (
    document_id uuid NOT NULL,
    revision integer NOT NULL,
    ordinal integer NOT NULL,
    chunk_id uuid NOT NULL,
    byte_start bigint NOT NULL,
    byte_end bigint NOT NULL,
    page integer,
    heading_path text[] NOT NULL,
    CONSTRAINT chunk_positions_pk PRIMARY KEY (document_id, revision, ordinal),
    CONSTRAINT chunk_positions_chunk_unique UNIQUE (chunk_id, revision),
    CONSTRAINT chunk_positions_chunk_fk FOREIGN KEY (chunk_id) REFERENCES chunk_metadata (id) ON DELETE CASCADE,
    CONSTRAINT chunk_positions_revision_fk FOREIGN KEY (document_id, revision)
        REFERENCES document_revisions (document_id, number) ON DELETE CASCADE,
    CONSTRAINT chunk_positions_range_check CHECK (0 <= byte_start AND byte_start < byte_end)
);
COMMENT ON TABLE chunk_positions IS 'Where a chunk stands in a revision: an unchanged chunk moves when text before it changes.';
COMMENT ON COLUMN chunk_positions.byte_start IS 'Half-open range in the document''s text: the source for text and Markdown, its Markdown reading for others.';

CREATE TABLE retired_points (
    chunk_id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    document_id uuid NOT NULL,
    due_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT retired_points_pk PRIMARY KEY (chunk_id)
);
COMMENT ON TABLE retired_points IS 'Ids still to be removed from Qdrant. No foreign keys: they outlive what they belonged to.';
COMMENT ON COLUMN retired_points.due_at IS 'Not removed from this list before: a write in flight could still bring the point back.';
CREATE INDEX retired_points_by_due ON retired_points (due_at);
CREATE INDEX retired_points_by_document ON retired_points (document_id);
