-- What goes with an account, and with a document.

-- A request that is under way while its account is deleted leaves no key behind: it waits for the deletion, and is refused.
DELETE FROM idempotency_keys k WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = k.principal_id);
ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_principal_fk
    FOREIGN KEY (principal_id) REFERENCES users (id) ON DELETE CASCADE;

-- Also finds the keys that have their answer: it shows the document, and is forgotten with it.
DROP INDEX idempotency_keys_by_document;
CREATE INDEX idempotency_keys_by_document ON idempotency_keys (document_id, revision) WHERE document_id IS NOT NULL;
