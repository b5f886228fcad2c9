-- A revision whose text is not stored yet is only claimed. It destroys nothing: what is older and unfinished can still be
-- completed alone, until the newer one is staged.

ALTER TABLE document_revisions DROP CONSTRAINT document_revisions_state_check;
UPDATE document_revisions SET state = 'claimed' WHERE state = 'staged' AND chunks_total IS NULL;
ALTER TABLE document_revisions ADD CONSTRAINT document_revisions_state_check
    CHECK (state IN ('claimed', 'staged', 'active', 'retired', 'failed'));
-- One that failed may have had its chunks or not.
ALTER TABLE document_revisions ADD CONSTRAINT document_revisions_chunks_check
    CHECK (state = 'failed' OR (state = 'claimed') = (chunks_total IS NULL));
COMMENT ON COLUMN document_revisions.chunks_total IS 'NULL as long as it is only claimed: until its chunks are staged, only the client has the text.';

-- For those that nobody goes on with.
CREATE INDEX document_revisions_claimed ON document_revisions (lease_expires_at) WHERE state = 'claimed';

-- Failures that the same work would meet again are counted by themselves: a store that is down for hours fails nothing.
ALTER TABLE document_revisions ADD COLUMN refusals integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN document_revisions.refusals IS 'How often its work ended in an error that does not pass by itself; too often, and it has failed.';

-- A document with very many chunks can not be deleted in one transaction. It goes out of sight with its row; its chunks may
-- outlive that, and retire batch by batch. Positions go with their chunks.
ALTER TABLE chunk_metadata DROP CONSTRAINT chunk_metadata_document_fk;
ALTER TABLE chunk_positions DROP CONSTRAINT chunk_positions_revision_fk;
COMMENT ON COLUMN chunk_metadata.document_id IS 'No foreign key: of a document that was deleted, chunks remain until they retire (erasures.remains).';
ALTER TABLE erasures ADD COLUMN points_due_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE erasures ADD COLUMN remains boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN erasures.points_due_at IS 'Not forgotten before: until then a write in flight could bring a point back.';
COMMENT ON COLUMN erasures.remains IS 'Chunks of it are still to be retired.';
CREATE INDEX erasures_remaining ON erasures (document_id) WHERE remains;
