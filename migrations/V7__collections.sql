-- Qdrant's collections, as far as PostgreSQL decides about them: which are written, and which one an alias stands for.

CREATE TABLE collections (
    id bigint GENERATED ALWAYS AS IDENTITY,
    alias text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    model text NOT NULL,
    dimension integer NOT NULL,
    state text NOT NULL,
    made boolean NOT NULL DEFAULT false,
    fence bigint NOT NULL DEFAULT 0,
    lease_expires_at timestamptz NOT NULL DEFAULT now(),
    next_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    scanned boolean NOT NULL DEFAULT false,
    faults bigint NOT NULL DEFAULT 0,
    expected bigint NOT NULL DEFAULT 0,
    written bigint NOT NULL DEFAULT 0,
    repaired bigint NOT NULL DEFAULT 0,
    removed bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    built_at timestamptz,
    left_at timestamptz,
    CONSTRAINT collections_pk PRIMARY KEY (id),
    CONSTRAINT collections_name_unique UNIQUE (name),
    CONSTRAINT collections_version_unique UNIQUE (alias, version),
    CONSTRAINT collections_state_check CHECK (state IN ('building', 'live', 'previous', 'leaving', 'gone'))
);
COMMENT ON COLUMN collections.alias IS 'Of its space: what queries name. Collections of two spaces never share one.';
COMMENT ON COLUMN collections.name IS 'Its own. Never used again, so a late request can not hit another collection.';
COMMENT ON COLUMN collections.model IS 'With dimension: the space of its vectors.';
COMMENT ON COLUMN collections.state IS 'live: behind the alias. previous: was, and is kept for a rollback. leaving: to be dropped. gone: dropped.';
COMMENT ON COLUMN collections.made IS 'It was created in Qdrant. One that is building is written by others from then on, and scanned after that.';
COMMENT ON COLUMN collections.fence IS 'The builder''s fencing token; a write that names another changes nothing.';
COMMENT ON COLUMN collections.lease_expires_at IS 'From then on anyone may go on with building it.';
COMMENT ON COLUMN collections.next_id IS 'All chunks before this one are written, or, once it is scanned, compared: where a later invocation resumes.';
COMMENT ON COLUMN collections.scanned IS 'All chunks are written once; what is left is to compare, until there is nothing to repair.';
COMMENT ON COLUMN collections.faults IS 'What the comparison that is running has found so far.';
COMMENT ON COLUMN collections.expected IS 'Chunks when it began: for whoever watches.';
COMMENT ON COLUMN collections.built_at IS 'Since when it is known to be complete. NULL: it is being built, or is the first, which grows with the documents.';
-- One build at a time; one collection behind an alias, and one before it.
CREATE UNIQUE INDEX collections_building_unique ON collections ((true)) WHERE state = 'building';
CREATE UNIQUE INDEX collections_live_unique ON collections (alias) WHERE state = 'live';
CREATE UNIQUE INDEX collections_previous_unique ON collections (alias) WHERE state = 'previous';
