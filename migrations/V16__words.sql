-- The words of full-text search come with the chunk. To read and stem a text took four fifths of what it cost to store it, and the
-- function does that anyway, for the index.
ALTER TABLE chunk_metadata ALTER COLUMN words DROP EXPRESSION;
COMMENT ON COLUMN chunk_metadata.words IS 'For full-text search while Qdrant is away: stems and their places. Words only: no vector in the sense of an embedding.';

-- A function that was built before this knows nothing of the column, and may run until the new ones are all in place.
CREATE FUNCTION chunk_metadata_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.words := to_tsvector('english', NEW.text);
    RETURN NEW;
END
$$;
CREATE TRIGGER chunk_metadata_words BEFORE INSERT ON chunk_metadata
    FOR EACH ROW WHEN (NEW.words IS NULL) EXECUTE FUNCTION chunk_metadata_words();
