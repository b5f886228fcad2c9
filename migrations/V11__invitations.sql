-- Invitations into knowledge bases. An address here need not have an account, and the answer to whoever invites does not
-- tell; nobody is put into a knowledge base unasked, because what is in it would then stand among their answers.

CREATE TABLE invitations (
    id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    email text NOT NULL,
    role text NOT NULL,
    invited_by uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT invitations_pk PRIMARY KEY (id),
    CONSTRAINT invitations_address_unique UNIQUE (knowledge_base_id, email),
    CONSTRAINT invitations_knowledge_base_fk FOREIGN KEY (knowledge_base_id) REFERENCES knowledge_bases (id) ON DELETE CASCADE,
    CONSTRAINT invitations_invited_by_fk FOREIGN KEY (invited_by) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT invitations_role_check CHECK (role IN ('owner', 'editor', 'viewer'))
);
COMMENT ON COLUMN invitations.email IS 'As users.email.';
COMMENT ON COLUMN invitations.invited_by IS 'Must still own the knowledge base when the invitation is accepted.';
CREATE INDEX invitations_by_email ON invitations (email);
CREATE INDEX invitations_by_inviter ON invitations (invited_by);
