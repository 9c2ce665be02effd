//! `rave-forge setup`: what must be there before anybody asks. Run at every start; what is right already stays.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio_postgres::Transaction;

use crate::accounts::{self, NewUser};
use crate::db::Db;
use crate::error::ApiError;
use crate::settings::Settings;
use crate::text;

/// The group of the appliance.
const GROUP: &str = "rave";
/// The user that the bridge works as.
const BOT: &str = "rave-bot";
/// How long the database may take to come.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientsFile {
    synapse: String,
    grafana: String,
}

/// Makes what is missing.
///
/// # Errors
/// If a secret's digest cannot be read, or the database refuses.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let clients = std::fs::read_to_string(&settings.secrets.clients)
        .with_context(|| format!("could not read `{}`", settings.secrets.clients.display()))?;
    let clients: ClientsFile = serde_json::from_str(&clients).map_err(|_| {
        anyhow::anyhow!("{}: must be {{\"synapse\": hex, \"grafana\": hex}}", settings.secrets.clients.display())
    })?;
    for digest in [&clients.synapse, &clients.grafana] {
        if !text::is_sha256(digest) {
            bail!(
                "{}: holds something else than the SHA-256 of a client's secret in hexadecimal",
                settings.secrets.clients.display()
            );
        }
    }
    // Where there is no bridge there is no token for it.
    let bot =
        settings.secrets.bot_token_digest.exists().then(|| digest(&settings.secrets.bot_token_digest)).transpose()?;
    let runner = digest(&settings.secrets.runner_token_digest)?;
    let db = Db::new(settings)?;
    wait(&db).await?;
    make(&db, settings, &clients, bot.as_deref(), &runner)
        .await
        .map_err(|error| anyhow::anyhow!("the database refused: {error:?}"))?;
    tracing::info!("group, bot, applications and runner are there");
    Ok(())
}

fn digest(path: &Path) -> anyhow::Result<String> {
    let content = std::fs::read_to_string(path).with_context(|| format!("could not read `{}`", path.display()))?;
    let digest = content.trim().to_owned();
    if text::is_sha256(&digest) {
        Ok(digest)
    } else {
        bail!("{}: must be the SHA-256 of a token: 64 hexadecimal digits", path.display())
    }
}

/// Waits until the database answers and has its tables.
///
/// # Errors
/// If it does not within a few minutes.
pub async fn wait(db: &Db) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match check_schema(db).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            bail!("the database cannot be used: {error:?}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Whether the database answers and has its tables.
///
/// # Errors
/// If not.
pub async fn check_schema(db: &Db) -> Result<(), ApiError> {
    let row = db
        .row("SELECT to_regclass('projects') IS NOT NULL AND to_regclass('users') IS NOT NULL AS complete", &[])
        .await?;
    match row.map(|row| row.get::<_, Option<bool>>("complete")) {
        Some(Some(true)) => Ok(()),
        _ => Err(ApiError::Unavailable("it has no tables yet".to_owned())),
    }
}

async fn make(
    db: &Db,
    settings: &Settings,
    clients: &ClientsFile,
    bot: Option<&str>,
    runner: &str,
) -> Result<(), ApiError> {
    let mut client = db.client().await?;
    let transaction = client.transaction().await?;
    let row = transaction
        .query_one(
            "INSERT INTO namespaces (kind, path, name) VALUES ('group', $1, 'RAVE') ON CONFLICT (path) DO UPDATE SET path = excluded.path RETURNING id",
            &[&GROUP],
        )
        .await?;
    let group: i64 = row.get("id");
    let host = text_host(&settings.url);
    let user = NewUser {
        username: BOT.to_owned(),
        name: "RAVE bot".to_owned(),
        email: format!("{BOT}@{host}"),
        admin: false,
        password: None,
    };
    let bot_id = accounts::create_user(&transaction, &user, true).await?;
    accounts::join(&transaction, bot_id, group, 40).await?;
    if let Some(digest) = bot {
        transaction
            .execute(
                "UPDATE personal_access_tokens SET revoked = true WHERE user_id = $1 AND token_digest <> $2",
                &[&bot_id, &digest],
            )
            .await?;
        accounts::add_token(&transaction, bot_id, "bridge", digest, "api").await?;
        // The token lives as long as the machine: at each start it is good for another year.
        let sql = "UPDATE personal_access_tokens SET expires_at = (forge_now() + interval '365 days')::date WHERE token_digest = $1";
        transaction.execute(sql, &[&digest]).await?;
    }
    let origin = settings.url.strip_suffix(&settings.prefix).unwrap_or(&settings.url);
    application(&transaction, "synapse", &format!("{origin}/_synapse/client/oidc/callback"), &clients.synapse).await?;
    application(&transaction, "grafana", &format!("{origin}/grafana/login/gitlab"), &clients.grafana).await?;
    transaction
        .execute(
            "INSERT INTO runners (description, token_digest, tag_list) VALUES ($1, $2, $3)
             ON CONFLICT (token_digest) DO UPDATE SET description = excluded.description, tag_list = excluded.tag_list",
            &[&settings.runner.description, &runner, &settings.runner.tags],
        )
        .await?;
    transaction.commit().await?;
    Ok(())
}

async fn application(transaction: &Transaction<'_>, uid: &str, redirect: &str, secret: &str) -> Result<(), ApiError> {
    let sql = "INSERT INTO oauth_applications (name, uid, secret, redirect_uri, scopes, confidential, trusted) VALUES ($1, $1, $2, $3, 'openid profile email', true, true)
        ON CONFLICT (uid) DO UPDATE SET secret = excluded.secret, redirect_uri = excluded.redirect_uri, scopes = excluded.scopes, trusted = true,
          confidential = true, updated_at = forge_now()";
    transaction.execute(sql, &[&uid, &secret, &redirect]).await?;
    Ok(())
}

fn text_host(url: &str) -> &str {
    let rest = url.split("://").nth(1).unwrap_or(url);
    rest.split(['/', ':']).next().unwrap_or(rest)
}
