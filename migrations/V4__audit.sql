-- Drift between the stores: what audits found, what they may not remove yet, and what remains to be said of the deleted.
-- Nothing here has foreign keys: the record outlives what it speaks of.

CREATE TABLE audits (
    id bigint GENERATED ALWAYS AS IDENTITY,
    knowledge_base_id uuid,
    fence bigint NOT NULL,
    lease_expires_at timestamptz NOT NULL,
    next_id uuid NOT NULL,
    merged boolean NOT NULL DEFAULT false,
    expected bigint NOT NULL DEFAULT 0,
    expected_digest bytea NOT NULL,
    found bigint NOT NULL DEFAULT 0,
    found_digest bytea NOT NULL,
    in_flight bigint NOT NULL DEFAULT 0,
    missing bigint NOT NULL DEFAULT 0,
    mislinked bigint NOT NULL DEFAULT 0,
    orphaned bigint NOT NULL DEFAULT 0,
    repaired bigint NOT NULL DEFAULT 0,
    removed bigint NOT NULL DEFAULT 0,
    withheld bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    approved_at timestamptz,
    CONSTRAINT audits_pk PRIMARY KEY (id)
);
COMMENT ON TABLE audits IS 'One merge of the ids of both stores each.';
COMMENT ON COLUMN audits.id IS 'Drawn here, so that a later audit has a higher one.';
COMMENT ON COLUMN audits.knowledge_base_id IS 'NULL: everything was compared.';
COMMENT ON COLUMN audits.fence IS 'The holder''s fencing token; a write that names another changes nothing.';
COMMENT ON COLUMN audits.lease_expires_at IS 'From then on anyone may go on with it.';
COMMENT ON COLUMN audits.next_id IS 'All ids before this one are compared: where a later invocation resumes.';
COMMENT ON COLUMN audits.merged IS 'All ids are compared; what is left is to remove orphans.';
COMMENT ON COLUMN audits.expected IS 'Chunks of active revisions: each must have its point.';
COMMENT ON COLUMN audits.expected_digest IS 'Of their ids in order: each step is SHA-256 of the digest before and the id, from 32 zero bytes on.';
COMMENT ON COLUMN audits.found IS 'Points, without those in flight.';
COMMENT ON COLUMN audits.found_digest IS 'Of their ids, likewise: equal digests, equal ids.';
COMMENT ON COLUMN audits.in_flight IS 'Points of staged chunks, and retired ones that are still on the list.';
COMMENT ON COLUMN audits.missing IS 'Expected, and not in Qdrant.';
COMMENT ON COLUMN audits.mislinked IS 'Expected, and in Qdrant with other link keys.';
COMMENT ON COLUMN audits.orphaned IS 'In Qdrant, and unknown to PostgreSQL.';
COMMENT ON COLUMN audits.repaired IS 'Missing or mislinked points that were embedded and written again.';
COMMENT ON COLUMN audits.removed IS 'Orphans that were removed, after approval too.';
COMMENT ON COLUMN audits.withheld IS 'Orphans that were too many to be removed unasked.';
COMMENT ON COLUMN audits.approved_at IS 'When an operator let the withheld removals go on.';
-- One audit at a time for each scope; the nil UUID stands for everything.
CREATE UNIQUE INDEX audits_unfinished_unique
    ON audits (COALESCE(knowledge_base_id, '00000000-0000-0000-0000-000000000000')) WHERE finished_at IS NULL;
CREATE INDEX audits_by_finish ON audits (finished_at);

CREATE TABLE audit_results (
    audit_id bigint NOT NULL,
    knowledge_base_id uuid NOT NULL,
    expected bigint NOT NULL,
    found bigint NOT NULL,
    missing bigint NOT NULL,
    mislinked bigint NOT NULL,
    orphaned bigint NOT NULL,
    repaired bigint NOT NULL,
    CONSTRAINT audit_results_pk PRIMARY KEY (knowledge_base_id, audit_id)
);
COMMENT ON TABLE audit_results IS 'An audit''s counts for each knowledge base; kept for the last one and those still running.';

CREATE TABLE orphaned_points (
    chunk_id uuid NOT NULL,
    knowledge_base_id uuid,
    document_id uuid,
    first_audit_id bigint NOT NULL,
    last_audit_id bigint NOT NULL,
    withheld_by bigint,
    condemned_by bigint,
    CONSTRAINT orphaned_points_pk PRIMARY KEY (chunk_id)
);
COMMENT ON TABLE orphaned_points IS 'Points that PostgreSQL does not know, until they are removed.';
COMMENT ON COLUMN orphaned_points.knowledge_base_id IS 'As the point''s payload says it; NULL when that says nothing.';
COMMENT ON COLUMN orphaned_points.document_id IS 'Likewise.';
COMMENT ON COLUMN orphaned_points.first_audit_id IS 'With last_audit_id: the audits that found it. Approving any of them removes it.';
COMMENT ON COLUMN orphaned_points.withheld_by IS 'The audit that left its removal to an operator.';
COMMENT ON COLUMN orphaned_points.condemned_by IS 'The audit by whose decision, or approval, it may be removed; NULL: it may not.';
CREATE INDEX orphaned_points_by_knowledge_base ON orphaned_points (knowledge_base_id);
CREATE INDEX orphaned_points_condemned ON orphaned_points (chunk_id) WHERE condemned_by IS NOT NULL;

CREATE TABLE erasures (
    document_id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    deleted_by uuid,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    points bigint NOT NULL,
    completed_at timestamptz,
    CONSTRAINT erasures_pk PRIMARY KEY (document_id)
);
COMMENT ON TABLE erasures IS 'A tombstone for each deleted document: no text, no title, no name.';
COMMENT ON COLUMN erasures.deleted_by IS 'Who deleted this document; NULL when it went with its knowledge base or account.';
COMMENT ON COLUMN erasures.points IS 'How many points it could have had: of all its chunks, staged ones included.';
COMMENT ON COLUMN erasures.completed_at IS 'Since when Qdrant is known to hold none of them.';
CREATE INDEX erasures_unfinished ON erasures (document_id) WHERE completed_at IS NULL;
CREATE INDEX erasures_by_knowledge_base ON erasures (knowledge_base_id);

-- For what a knowledge base still has to remove.
CREATE INDEX retired_points_by_knowledge_base ON retired_points (knowledge_base_id);
