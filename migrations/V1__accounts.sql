-- Accounts and knowledge bases. PostgreSQL is their only home.

CREATE TABLE users (
    id uuid NOT NULL,
    email text NOT NULL,
    display_name text,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_pk PRIMARY KEY (id),
    CONSTRAINT users_email_unique UNIQUE (email)
);
COMMENT ON COLUMN users.email IS 'In the form in which addresses are compared: NFKC, lower case.';
COMMENT ON COLUMN users.password_hash IS 'argon2id in PHC string format, parameters and salt included.';

CREATE TABLE knowledge_bases (
    id uuid NOT NULL,
    name text NOT NULL,
    personal_user_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT knowledge_bases_pk PRIMARY KEY (id),
    CONSTRAINT knowledge_bases_personal_unique UNIQUE (personal_user_id),
    CONSTRAINT knowledge_bases_personal_user_fk FOREIGN KEY (personal_user_id) REFERENCES users (id)
);
COMMENT ON TABLE knowledge_bases IS 'The unit of access: whoever may read one document of it may read all.';
COMMENT ON COLUMN knowledge_bases.personal_user_id IS 'Set on the one that a user gets at registration.';

CREATE TABLE knowledge_base_members (
    knowledge_base_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT knowledge_base_members_pk PRIMARY KEY (user_id, knowledge_base_id),
    CONSTRAINT knowledge_base_members_user_fk FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT knowledge_base_members_knowledge_base_fk FOREIGN KEY (knowledge_base_id) REFERENCES knowledge_bases (id),
    CONSTRAINT knowledge_base_members_role_check CHECK (role IN ('owner', 'editor', 'viewer'))
);
CREATE INDEX knowledge_base_members_by_knowledge_base ON knowledge_base_members (knowledge_base_id);

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT now(),
    event text NOT NULL,
    user_id uuid,
    request_id text,
    detail jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT audit_log_pk PRIMARY KEY (id)
);
COMMENT ON TABLE audit_log IS 'Account events, append only.';
COMMENT ON COLUMN audit_log.user_id IS 'No foreign key: the record outlives the account.';
CREATE INDEX audit_log_by_user ON audit_log (user_id, at);
