//! What a file may say, and what is said about one that says something else.

use super::*;
use crate::scenario::file::read_text;

/// The example of the design, as it stands there.
const EXAMPLE: &str = r#"
summary = "PostgreSQL serves the RAVE databases"
needs   = ["postgresql"]
timeout = "60s"

[[step]]
name   = "accepts connections"
run    = "pg_isready -h /run/postgresql -t 3"
within = "120s"                       # ask again until it holds; without it, ask once

[[step]]
name   = "the synapse database has the C collation"
run    = "sudo -u postgres psql -XAtqc \"select datcollate from pg_database where datname = 'synapse'\""
stdout = { equals = "C" }

[[step]]
name   = "no transaction is older than a minute"
level  = "warn"
run    = "…"
stdout = { at_most = 60 }

[[step]]
name = "Synapse sends a browser to GitLab"
[step.http]
get              = "/_matrix/client/v3/login/sso/redirect/oidc-gitlab?redirectUrl=https://rave.local:3002/harness/"
status           = 302
header.location  = { matches = '^https://rave\.local:3002/gitlab/oauth/authorize\?' }
capture.authorize = { header = "location" }
"#;

#[test]
fn example() {
    let read = read_text("scenarios/health/postgresql.toml".into(), Phase::Health, EXAMPLE);
    assert_eq!(read.unwrap().steps.len(), 4);
}
