-- What the functions' role may do: rows, not the schema; and the audit log is written and read, never changed. Run after
-- every migration, in one transaction, so that new tables are covered by being there.
--
-- `lockstep_app` is a group: the functions' login role is made its member by whoever installs. Roles belong to the whole
-- server, so another database's migration may make it at the same time. Who may not make roles (and finds none made by an
-- administrator) goes on without: then the functions run as whoever migrates.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'lockstep_app') THEN
        BEGIN
            CREATE ROLE lockstep_app NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE WARNING 'the role lockstep_app can not be made: the functions will run as the owner of the schema';
                RETURN;
        END;
    END IF;
    GRANT USAGE ON SCHEMA public TO lockstep_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO lockstep_app;
    GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO lockstep_app;
    REVOKE UPDATE, DELETE ON audit_log FROM lockstep_app;
    REVOKE ALL ON refinery_schema_history FROM lockstep_app;
    -- Before PostgreSQL 15, everyone may make tables here. Only the schema's owner can change that.
    BEGIN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    EXCEPTION
        WHEN insufficient_privilege THEN NULL;
    END;
END $$
