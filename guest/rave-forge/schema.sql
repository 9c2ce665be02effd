-- What rave-forge keeps beside its repositories. Loaded after guest/identity/schema.sql, by the same role. Times are UTC without a zone.
-- A repository's branches are the truth about commits; this is the truth about everything else.

-- A time as the API writes it.
CREATE FUNCTION forge_iso(timestamp) RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT to_char($1, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

CREATE FUNCTION forge_now() RETURNS timestamp LANGUAGE sql STABLE AS $$ SELECT now() AT TIME ZONE 'UTC' $$;

CREATE TABLE projects (
    id                  bigserial PRIMARY KEY,
    namespace_id        bigint NOT NULL REFERENCES namespaces,
    path                text NOT NULL,
    name                text NOT NULL,
    description         text NOT NULL DEFAULT '',
    visibility          text NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'internal', 'public')),
    default_branch      text, -- none while the repository is empty
    creator_id          bigint REFERENCES users ON DELETE SET NULL,
    pipeline_must_pass  boolean NOT NULL DEFAULT false,
    remove_source       boolean NOT NULL DEFAULT true,
    deleting            boolean NOT NULL DEFAULT false, -- gone for everybody; the repository is being removed
    last_mr_iid         bigint NOT NULL DEFAULT 0,
    last_pipeline_iid   bigint NOT NULL DEFAULT 0,
    created_at          timestamp(6) NOT NULL DEFAULT forge_now(),
    updated_at          timestamp(6) NOT NULL DEFAULT forge_now()
);
CREATE UNIQUE INDEX projects_path ON projects (namespace_id, lower(path));

CREATE TABLE project_members (
    user_id      bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    project_id   bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
    access_level integer NOT NULL CHECK (access_level IN (10, 20, 30, 40, 50)),
    created_at   timestamp(6) NOT NULL DEFAULT forge_now(),
    PRIMARY KEY (user_id, project_id)
);

-- Who may move a branch: the default branch is listed when it comes to be.
CREATE TABLE protected_branches (
    project_id  bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
    name        text NOT NULL,
    push_level  integer NOT NULL DEFAULT 40,
    merge_level integer NOT NULL DEFAULT 40,
    PRIMARY KEY (project_id, name)
);

-- The branches as they were when last looked at. What differs from the repository has not been followed up yet: pipelines, merge requests.
CREATE TABLE branches (
    project_id bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
    name       text NOT NULL,
    sha        text NOT NULL,
    PRIMARY KEY (project_id, name)
);

CREATE TABLE merge_requests (
    id                bigserial PRIMARY KEY,
    project_id        bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
    iid               bigint NOT NULL,
    source_branch     text NOT NULL,
    target_branch     text NOT NULL,
    title             text NOT NULL,
    description       text NOT NULL DEFAULT '',
    -- locked: the merge commit is made and noted below, the branch has perhaps not moved yet.
    state             text NOT NULL DEFAULT 'opened' CHECK (state IN ('opened', 'closed', 'locked', 'merged')),
    merge_status      text NOT NULL DEFAULT 'unchecked' CHECK (merge_status IN ('unchecked', 'checking', 'can_be_merged', 'cannot_be_merged', 'no_commits')),
    author_id         bigint NOT NULL REFERENCES users,
    sha               text NOT NULL,
    base_sha          text, -- where the merged branches parted
    merge_commit_sha  text,
    remove_source     boolean NOT NULL DEFAULT false,
    merge_on_success  boolean NOT NULL DEFAULT false,
    merged_by         bigint REFERENCES users,
    merged_at         timestamp(6),
    closed_by         bigint REFERENCES users,
    closed_at         timestamp(6),
    created_at        timestamp(6) NOT NULL DEFAULT forge_now(),
    updated_at        timestamp(6) NOT NULL DEFAULT forge_now(),
    UNIQUE (project_id, iid)
);
CREATE UNIQUE INDEX merge_requests_open ON merge_requests (project_id, source_branch, target_branch) WHERE state IN ('opened', 'locked');
CREATE INDEX merge_requests_unchecked ON merge_requests (id) WHERE state = 'opened' AND merge_status = 'unchecked';

CREATE TABLE notes (
    id               bigserial PRIMARY KEY,
    merge_request_id bigint NOT NULL REFERENCES merge_requests ON DELETE CASCADE,
    author_id        bigint NOT NULL REFERENCES users,
    body             text NOT NULL,
    system           boolean NOT NULL DEFAULT false,
    created_at       timestamp(6) NOT NULL DEFAULT forge_now(),
    updated_at       timestamp(6) NOT NULL DEFAULT forge_now()
);
CREATE INDEX notes_merge_request ON notes (merge_request_id);

CREATE TABLE pipelines (
    id               bigserial PRIMARY KEY,
    project_id       bigint NOT NULL REFERENCES projects ON DELETE CASCADE,
    iid              bigint NOT NULL,
    ref              text NOT NULL,
    sha              text NOT NULL,
    before_sha       text NOT NULL DEFAULT '0000000000000000000000000000000000000000',
    source           text NOT NULL CHECK (source IN ('push', 'api', 'web', 'merge_request_event')),
    status           text NOT NULL DEFAULT 'created',
    user_id          bigint REFERENCES users ON DELETE SET NULL,
    merge_request_id bigint REFERENCES merge_requests ON DELETE CASCADE,
    yaml_errors      text,
    created_at       timestamp(6) NOT NULL DEFAULT forge_now(),
    updated_at       timestamp(6) NOT NULL DEFAULT forge_now(),
    started_at       timestamp(6),
    finished_at      timestamp(6),
    UNIQUE (project_id, iid)
);
CREATE INDEX pipelines_sha ON pipelines (project_id, sha);

CREATE TABLE runners (
    id           bigserial PRIMARY KEY,
    description  text NOT NULL DEFAULT '',
    token_digest text NOT NULL UNIQUE, -- hex SHA-256
    runner_type  text NOT NULL DEFAULT 'instance_type',
    tag_list     text[] NOT NULL DEFAULT '{}',
    run_untagged boolean NOT NULL DEFAULT true,
    paused       boolean NOT NULL DEFAULT false,
    creator_id   bigint REFERENCES users ON DELETE SET NULL,
    contacted_at timestamp(6),
    created_at   timestamp(6) NOT NULL DEFAULT forge_now()
);

CREATE TABLE jobs (
    id              bigserial PRIMARY KEY,
    pipeline_id     bigint NOT NULL REFERENCES pipelines ON DELETE CASCADE,
    name            text NOT NULL,
    stage           text NOT NULL,
    stage_index     integer NOT NULL,
    status          text NOT NULL DEFAULT 'created',
    starts          text NOT NULL DEFAULT 'on_success' CHECK (starts IN ('on_success', 'on_failure', 'always', 'manual')),
    allow_failure   boolean NOT NULL DEFAULT false,
    tags            text[] NOT NULL DEFAULT '{}',
    script          text[] NOT NULL,
    variables       jsonb NOT NULL DEFAULT '{}',
    timeout_seconds integer NOT NULL,
    retried         boolean NOT NULL DEFAULT false,
    runner_id       bigint REFERENCES runners ON DELETE SET NULL,
    token_digest    text UNIQUE, -- of the token that the runner works with; none once the job has ended
    failure_reason  text,
    trace           bytea NOT NULL DEFAULT '',
    created_at      timestamp(6) NOT NULL DEFAULT forge_now(),
    started_at      timestamp(6),
    finished_at     timestamp(6),
    heard_at        timestamp(6) -- when its runner was last heard
);
CREATE INDEX jobs_pipeline ON jobs (pipeline_id);
CREATE INDEX jobs_active ON jobs (status) WHERE status IN ('pending', 'running');

CREATE TABLE user_keys (
    id          bigserial PRIMARY KEY,
    user_id     bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    title       text NOT NULL,
    key         text NOT NULL,
    fingerprint text NOT NULL UNIQUE, -- SHA256:…, as ssh-keygen shows it
    created_at  timestamp(6) NOT NULL DEFAULT forge_now()
);

-- How the API shows things. `rave.url` is set by the program for its connections: what stands before every path.

CREATE FUNCTION forge_url() RETURNS text LANGUAGE sql STABLE AS $$ SELECT coalesce(current_setting('rave.url', true), '') $$;

CREATE FUNCTION forge_user(wanted bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', id, 'username', username, 'name', name, 'state', state, 'locked', false,
        'avatar_url', NULL, 'web_url', forge_url() || '/' || username)
    FROM users WHERE id = wanted
$$;

CREATE FUNCTION forge_namespace(n namespaces) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', n.id, 'name', n.name, 'path', n.path, 'kind', n.kind, 'full_path', n.path, 'parent_id', NULL, 'avatar_url', NULL,
        'web_url', forge_url() || CASE n.kind WHEN 'group' THEN '/groups/' ELSE '/' END || n.path)
$$;

CREATE FUNCTION forge_project(p projects) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', p.id, 'name', p.name, 'path', p.path, 'description', nullif(p.description, ''), 'visibility', p.visibility,
        'name_with_namespace', n.name || ' / ' || p.name, 'path_with_namespace', n.path || '/' || p.path,
        'default_branch', p.default_branch, 'empty_repo', p.default_branch IS NULL, 'creator_id', p.creator_id,
        'created_at', forge_iso(p.created_at), 'updated_at', forge_iso(p.updated_at), 'last_activity_at', forge_iso(p.updated_at),
        'namespace', forge_namespace(n), 'archived', false, 'topics', '[]'::jsonb, 'tag_list', '[]'::jsonb, 'star_count', 0, 'forks_count', 0,
        'http_url_to_repo', forge_url() || '/' || n.path || '/' || p.path || '.git',
        'ssh_url_to_repo', 'git@' || split_part(split_part(forge_url(), '/', 3), ':', 1) || ':' || n.path || '/' || p.path || '.git',
        'web_url', forge_url() || '/' || n.path || '/' || p.path, 'readme_url', NULL, 'avatar_url', NULL,
        'merge_method', 'merge', 'squash_option', 'never', 'only_allow_merge_if_pipeline_succeeds', p.pipeline_must_pass,
        'remove_source_branch_after_merge', p.remove_source,
        'issues_enabled', false, 'merge_requests_enabled', true, 'jobs_enabled', true, 'wiki_enabled', false, 'snippets_enabled', false,
        'merge_requests_access_level', 'enabled', 'builds_access_level', 'enabled', 'repository_access_level', 'enabled')
    FROM namespaces n WHERE n.id = p.namespace_id
$$;

CREATE FUNCTION forge_project_url(project bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT forge_url() || '/' || n.path || '/' || p.path FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE p.id = project
$$;

CREATE FUNCTION forge_pipeline(p pipelines) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', p.id, 'iid', p.iid, 'project_id', p.project_id, 'sha', p.sha, 'ref', p.ref, 'status', p.status, 'source', p.source,
        'name', NULL, 'created_at', forge_iso(p.created_at), 'updated_at', forge_iso(p.updated_at),
        'web_url', forge_project_url(p.project_id) || '/-/pipelines/' || p.id)
$$;

CREATE FUNCTION forge_pipeline_whole(p pipelines) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT forge_pipeline(p) || jsonb_build_object('before_sha', p.before_sha, 'tag', false, 'yaml_errors', p.yaml_errors, 'user', forge_user(p.user_id),
        'started_at', forge_iso(p.started_at), 'finished_at', forge_iso(p.finished_at), 'committed_at', NULL, 'coverage', NULL,
        'duration', extract(epoch FROM p.finished_at - p.started_at)::integer, 'queued_duration', extract(epoch FROM p.started_at - p.created_at)::integer,
        'detailed_status', jsonb_build_object('text', p.status, 'label', p.status, 'group', p.status, 'icon', 'status_' || p.status))
$$;

CREATE FUNCTION forge_runner(r runners) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', r.id, 'description', r.description, 'name', 'rave-forge', 'ip_address', '127.0.0.1', 'runner_type', r.runner_type,
        'is_shared', r.runner_type = 'instance_type', 'active', NOT r.paused, 'paused', r.paused, 'created_at', forge_iso(r.created_at),
        'created_by', forge_user(r.creator_id), 'online', coalesce(r.contacted_at > forge_now() - interval '2 hours', false),
        'status', CASE WHEN r.contacted_at IS NULL THEN CASE WHEN r.created_at < forge_now() - interval '3 months' THEN 'stale' ELSE 'never_contacted' END
                       WHEN r.contacted_at > forge_now() - interval '2 hours' THEN 'online'
                       WHEN r.contacted_at > forge_now() - interval '3 months' THEN 'offline' ELSE 'stale' END)
$$;

CREATE FUNCTION forge_job(j jobs) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', j.id, 'name', j.name, 'stage', j.stage, 'status', j.status, 'ref', p.ref, 'tag', false, 'coverage', NULL,
        'allow_failure', j.allow_failure, 'tag_list', to_jsonb(j.tags), 'failure_reason', j.failure_reason,
        'created_at', forge_iso(j.created_at), 'started_at', forge_iso(j.started_at), 'finished_at', forge_iso(j.finished_at),
        'duration', extract(epoch FROM j.finished_at - j.started_at)::float8, 'queued_duration', extract(epoch FROM j.started_at - j.created_at)::float8,
        'user', forge_user(p.user_id), 'pipeline', forge_pipeline(p), 'commit', jsonb_build_object('id', p.sha, 'short_id', left(p.sha, 8)),
        'runner', (SELECT forge_runner(r) FROM runners r WHERE r.id = j.runner_id), 'artifacts', '[]'::jsonb,
        'web_url', forge_project_url(p.project_id) || '/-/jobs/' || j.id, 'project', jsonb_build_object('ci_job_token_scope_enabled', true))
    FROM pipelines p WHERE p.id = j.pipeline_id
$$;

-- The newest pipeline of a merge request's commit: of its branch, or its own.
CREATE FUNCTION forge_head_pipeline(m merge_requests) RETURNS pipelines LANGUAGE sql STABLE AS $$
    SELECT p FROM pipelines p WHERE p.project_id = m.project_id AND p.sha = m.sha AND (p.ref = m.source_branch OR p.merge_request_id = m.id)
    ORDER BY p.id DESC LIMIT 1
$$;

CREATE FUNCTION forge_is_draft(title text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT title ~* '^\s*(draft:|\[draft\]|\(draft\))' $$;

CREATE FUNCTION forge_merge_status(m merge_requests) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN m.state <> 'opened' THEN 'not_open'
        WHEN m.merge_status IN ('unchecked', 'checking') THEN m.merge_status
        WHEN m.merge_status = 'no_commits' THEN 'commits_status'
        WHEN forge_is_draft(m.title) THEN 'draft_status'
        WHEN m.merge_status = 'cannot_be_merged' THEN 'conflict'
        WHEN NOT (SELECT pipeline_must_pass FROM projects WHERE id = m.project_id) THEN 'mergeable'
        ELSE CASE
            WHEN (forge_head_pipeline(m)).status IN ('success') THEN 'mergeable'
            WHEN (forge_head_pipeline(m)).status IN ('created', 'pending', 'running') THEN 'ci_still_running'
            ELSE 'ci_must_pass' END
        END
$$;

CREATE FUNCTION forge_merge_request(m merge_requests) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', m.id, 'iid', m.iid, 'project_id', m.project_id, 'source_project_id', m.project_id, 'target_project_id', m.project_id,
        'title', m.title, 'description', m.description, 'state', m.state, 'source_branch', m.source_branch, 'target_branch', m.target_branch,
        'author', forge_user(m.author_id), 'assignee', NULL, 'assignees', '[]'::jsonb, 'reviewers', '[]'::jsonb, 'labels', '[]'::jsonb, 'milestone', NULL,
        'created_at', forge_iso(m.created_at), 'updated_at', forge_iso(m.updated_at),
        'merged_at', forge_iso(m.merged_at), 'closed_at', forge_iso(m.closed_at),
        'merged_by', forge_user(m.merged_by), 'merge_user', forge_user(m.merged_by), 'closed_by', forge_user(m.closed_by),
        'sha', m.sha, 'merge_commit_sha', CASE WHEN m.state = 'merged' THEN m.merge_commit_sha END, 'squash_commit_sha', NULL, 'squash', false,
        'draft', forge_is_draft(m.title), 'work_in_progress', forge_is_draft(m.title),
        'merge_status', CASE m.merge_status WHEN 'no_commits' THEN 'cannot_be_merged' ELSE m.merge_status END,
        'detailed_merge_status', forge_merge_status(m), 'has_conflicts', m.merge_status = 'cannot_be_merged',
        'merge_when_pipeline_succeeds', m.merge_on_success, 'should_remove_source_branch', CASE WHEN m.remove_source THEN true END,
        'force_remove_source_branch', m.remove_source, 'blocking_discussions_resolved', true, 'user_notes_count',
            (SELECT count(*) FROM notes WHERE merge_request_id = m.id AND NOT system))
      || jsonb_build_object(
        'reference', '!' || m.iid, 'references', jsonb_build_object('short', '!' || m.iid, 'relative', '!' || m.iid, 'full',
            (SELECT n.path || '/' || p.path FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE p.id = m.project_id) || '!' || m.iid),
        'web_url', forge_project_url(m.project_id) || '/-/merge_requests/' || m.iid, 'upvotes', 0, 'downvotes', 0,
        'time_stats', jsonb_build_object('time_estimate', 0, 'total_time_spent', 0))
$$;

CREATE FUNCTION forge_merge_request_whole(m merge_requests) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT forge_merge_request(m) || jsonb_build_object(
        'head_pipeline', (SELECT forge_pipeline_whole(p) FROM pipelines p WHERE p.id = (forge_head_pipeline(m)).id),
        'pipeline', (SELECT forge_pipeline(p) FROM pipelines p WHERE p.id = (forge_head_pipeline(m)).id),
        'diff_refs', jsonb_build_object('base_sha', m.base_sha, 'head_sha', m.sha, 'start_sha', m.base_sha),
        'merge_error', NULL, 'changes_count', NULL, 'subscribed', false, 'first_contribution', false)
$$;

CREATE FUNCTION forge_note(t notes) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', t.id, 'body', t.body, 'type', NULL, 'system', t.system, 'author', forge_user(t.author_id), 'attachment', NULL,
        'created_at', forge_iso(t.created_at), 'updated_at', forge_iso(t.updated_at), 'resolvable', false, 'confidential', false, 'internal', false,
        'noteable_type', 'MergeRequest', 'noteable_id', m.id, 'noteable_iid', m.iid, 'project_id', m.project_id)
    FROM merge_requests m WHERE m.id = t.merge_request_id
$$;

CREATE FUNCTION forge_token(t personal_access_tokens) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', t.id, 'name', t.name, 'revoked', t.revoked, 'created_at', forge_iso(t.created_at), 'description', NULL,
        'scopes', to_jsonb(string_to_array(t.scopes, ' ')), 'user_id', t.user_id, 'last_used_at', forge_iso(t.last_used_at),
        'active', NOT t.revoked AND t.expires_at > forge_now()::date, 'expires_at', t.expires_at)
$$;
