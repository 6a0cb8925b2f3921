"""Who may do what: TLS, tokens, identity providers, teams and roles, ownership of blobs, the audit record."""
