-- What questions need of PostgreSQL beside the join: full-text search for when Qdrant is away, and filters.

-- Stored, because ranking reads it for every chunk that matches; made once, when the chunk is.
ALTER TABLE chunk_metadata
    ADD COLUMN words tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('english', text)) STORED;
COMMENT ON COLUMN chunk_metadata.words IS 'For full-text search while Qdrant is away. Words only: no vector in the sense of an embedding.';
CREATE INDEX chunk_metadata_by_words ON chunk_metadata USING gin (words);

CREATE INDEX documents_by_attributes ON documents USING gin (attributes jsonb_path_ops);
