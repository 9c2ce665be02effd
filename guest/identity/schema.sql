-- Accounts, groups, and what doorkeeper keeps: shared by identity, which signs in, and rave-forge, which sets up. Loaded as the role
-- that owns the database. Times are UTC without a zone, as Rails writes them.

CREATE TABLE users (
    id              bigserial PRIMARY KEY,
    username        text NOT NULL UNIQUE,
    name            text NOT NULL,
    email           text NOT NULL UNIQUE,
    password_digest text, -- bcrypt ($2a$ or $2b$); without one nobody signs in
    admin           boolean NOT NULL DEFAULT false,
    state           text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'blocked')),
    confirmed_at    timestamp(6),
    created_at      timestamp(6) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    updated_at      timestamp(6) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);
-- One signs in by either, in any case of letters.
CREATE UNIQUE INDEX users_username_lower ON users (lower(username));
CREATE UNIQUE INDEX users_email_lower ON users (lower(email));

-- Browser sessions: the cookie holds an identifier, this table its SHA-256, so that a copied cookie ends with the session.
CREATE TABLE user_sessions (
    id         bigserial PRIMARY KEY,
    user_id    bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    digest     text NOT NULL UNIQUE,
    created_at timestamp(6) NOT NULL,
    expires_at timestamp(6) NOT NULL
);
CREATE INDEX user_sessions_expires_at ON user_sessions (expires_at);

CREATE TABLE personal_access_tokens (
    id           bigserial PRIMARY KEY,
    user_id      bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    name         text NOT NULL,
    token_digest text NOT NULL UNIQUE, -- hex SHA-256 of the token
    scopes       text NOT NULL DEFAULT '', -- separated by spaces
    expires_at   date NOT NULL,
    revoked      boolean NOT NULL DEFAULT false,
    created_at   timestamp(6) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    last_used_at timestamp(6)
);
CREATE INDEX personal_access_tokens_user_id ON personal_access_tokens (user_id);

CREATE TABLE namespaces (
    id         bigserial PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('user', 'group')),
    path       text NOT NULL UNIQUE,
    name       text NOT NULL,
    owner_id   bigint REFERENCES users ON DELETE CASCADE,
    visibility text NOT NULL DEFAULT 'private',
    created_at timestamp(6) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);

CREATE TABLE members (
    id           bigserial PRIMARY KEY,
    user_id      bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    namespace_id bigint NOT NULL REFERENCES namespaces ON DELETE CASCADE,
    access_level integer NOT NULL CHECK (access_level IN (10, 20, 30, 40, 50)), -- guest reporter developer maintainer owner
    created_at   timestamp(6) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    UNIQUE (user_id, namespace_id)
);
CREATE INDEX members_namespace_id ON members (namespace_id);

-- From here on as doorkeeper's generators make them. Secrets and tokens are hex SHA-256 digests.
CREATE TABLE oauth_applications (
    id           bigserial PRIMARY KEY,
    name         character varying NOT NULL,
    uid          character varying NOT NULL,
    secret       character varying NOT NULL,
    redirect_uri text NOT NULL,
    scopes       character varying NOT NULL DEFAULT '',
    confidential boolean NOT NULL DEFAULT true,
    trusted      boolean NOT NULL DEFAULT false, -- as GitLab: no question to the user
    created_at   timestamp(6) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    updated_at   timestamp(6) NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);
CREATE UNIQUE INDEX index_oauth_applications_on_uid ON oauth_applications (uid);

CREATE TABLE oauth_access_grants (
    id                    bigserial PRIMARY KEY,
    resource_owner_id     bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    application_id        bigint NOT NULL REFERENCES oauth_applications ON DELETE CASCADE,
    token                 character varying NOT NULL,
    expires_in            integer NOT NULL,
    redirect_uri          text NOT NULL,
    scopes                character varying NOT NULL DEFAULT '',
    code_challenge        character varying,
    code_challenge_method character varying,
    created_at            timestamp(6) NOT NULL,
    revoked_at            timestamp(6)
);
CREATE UNIQUE INDEX index_oauth_access_grants_on_token ON oauth_access_grants (token);
CREATE INDEX index_oauth_access_grants_on_application_id ON oauth_access_grants (application_id);
CREATE INDEX index_oauth_access_grants_on_resource_owner_id ON oauth_access_grants (resource_owner_id);

-- No column previous_refresh_token, as in GitLab: a refresh token is revoked the moment it is used, not when its successor is.
CREATE TABLE oauth_access_tokens (
    id                bigserial PRIMARY KEY,
    resource_owner_id bigint REFERENCES users ON DELETE CASCADE,
    application_id    bigint NOT NULL REFERENCES oauth_applications ON DELETE CASCADE,
    token             character varying NOT NULL,
    refresh_token     character varying,
    expires_in        integer,
    scopes            character varying,
    created_at        timestamp(6) NOT NULL,
    revoked_at        timestamp(6)
);
CREATE UNIQUE INDEX index_oauth_access_tokens_on_token ON oauth_access_tokens (token);
CREATE UNIQUE INDEX index_oauth_access_tokens_on_refresh_token ON oauth_access_tokens (refresh_token);
CREATE INDEX index_oauth_access_tokens_on_application_id ON oauth_access_tokens (application_id);
CREATE INDEX index_oauth_access_tokens_on_resource_owner_id ON oauth_access_tokens (resource_owner_id);

CREATE TABLE oauth_openid_requests (
    id              bigserial PRIMARY KEY,
    access_grant_id bigint NOT NULL REFERENCES oauth_access_grants ON DELETE CASCADE,
    nonce           character varying NOT NULL
);
CREATE INDEX index_oauth_openid_requests_on_access_grant_id ON oauth_openid_requests (access_grant_id);
