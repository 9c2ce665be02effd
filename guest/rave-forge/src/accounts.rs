//! `rave-forge accounts`: makes the accounts that were handed to the machine as systemd credential `rave.accounts`.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;
use tokio_postgres::Transaction;

use crate::db::Db;
use crate::error::ApiError;
use crate::settings::Settings;
use crate::{setup, text};

/// The credential's name.
const CREDENTIAL: &str = "rave.accounts";
/// bcrypt's cost: as Rails has it in production.
const COST: u32 = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsFile {
    schema: u32,
    group: String,
    accounts: Vec<Account>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    username: String,
    name: String,
    email: String,
    #[serde(default)]
    admin: bool,
    access_level: Option<i32>,
    password: String,
    token: Option<String>,
}

/// A user who is to be.
#[derive(Clone)]
pub struct NewUser {
    /// The name for signing in.
    pub username: String,
    /// The name for reading.
    pub name: String,
    /// The address.
    pub email: String,
    /// Whether an administrator.
    pub admin: bool,
    /// The password; without one nobody signs in.
    pub password: Option<String>,
}

/// Makes the accounts. Again, it sets what they should be.
///
/// # Errors
/// If the credential is wrong or the database refuses.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
        .context("CREDENTIALS_DIRECTORY is not set: this runs as a unit with ImportCredential=")?;
    let path = PathBuf::from(folder).join(CREDENTIAL);
    let content = std::fs::read(&path).with_context(|| format!("could not read `{}`", path.display()))?;
    let file = read(&content).map_err(|why| anyhow::anyhow!("the credential `{CREDENTIAL}` {why}"))?;
    let db = Db::new(settings)?;
    setup::wait(&db).await?;
    make(&db, file).await.map_err(|error| anyhow::anyhow!("the database refused an account: {error:?}"))
}

/// Serde's own message would quote values, and a value may be a password.
fn read(content: &[u8]) -> Result<AccountsFile, String> {
    let file: AccountsFile = serde_json::from_slice(content).map_err(|error| {
        format!(
            "is not what is expected at line {}, column {}: {{\"schema\":1,\"group\":…,\"accounts\":[…]}}",
            error.line(),
            error.column()
        )
    })?;
    if file.schema != 1 {
        return Err(format!("has schema {}; 1 is understood", file.schema));
    }
    for (number, account) in file.accounts.iter().enumerate() {
        let wrong = |what: &str| Err(format!("has in account {} {what}", number + 1));
        if !text::is_path(&account.username) {
            return wrong("a username that cannot be one");
        }
        if !account.email.contains('@') {
            return wrong("an e-mail address without @");
        }
        if account.password.chars().count() < 8 || account.password.len() > 72 {
            return wrong("a password that is not 8 to 72 bytes long");
        }
        if account.access_level.is_some_and(|level| ![10, 20, 30, 40, 50].contains(&level)) {
            return wrong("an access level that is none of 10, 20, 30, 40, 50");
        }
        if account.token.as_deref().is_some_and(|token| token.len() < 20) {
            return wrong("a token of fewer than 20 characters");
        }
    }
    Ok(file)
}

async fn make(db: &Db, file: AccountsFile) -> Result<(), ApiError> {
    let mut client = db.client().await?;
    let transaction = client.transaction().await?;
    let group =
        transaction.query_opt("SELECT id FROM namespaces WHERE kind = 'group' AND path = $1", &[&file.group]).await?;
    let group: i64 = group.ok_or_else(|| ApiError::not_found("Group"))?.get(0);
    let count = file.accounts.len();
    for account in file.accounts {
        let Account { username, name, email, admin, access_level, password, token } = account;
        let user = NewUser { username, name, email, admin, password: Some(password) };
        let id = create_user(&transaction, &user, true).await?;
        match access_level {
            Some(level) => join(&transaction, id, group, level).await?,
            None => drop(
                transaction
                    .execute("DELETE FROM members WHERE user_id = $1 AND namespace_id = $2", &[&id, &group])
                    .await?,
            ),
        }
        if let Some(token) = token {
            add_token(&transaction, id, "handed in", &text::sha256(&token), "api").await?;
        }
    }
    transaction.commit().await?;
    tracing::info!("{count} accounts are there");
    Ok(())
}

/// Makes a user with a namespace, or sets what the user is to be; returns the id.
///
/// # Errors
/// If the database is away, or the address is another user's.
pub async fn create_user(transaction: &Transaction<'_>, user: &NewUser, confirmed: bool) -> Result<i64, ApiError> {
    let digest = match user.password.clone() {
        Some(password) => Some(
            tokio::task::spawn_blocking(move || bcrypt::hash(password, COST))
                .await
                .map_err(ApiError::internal)?
                .map_err(ApiError::internal)?,
        ),
        None => None,
    };
    let row = transaction
        .query_one(
            "INSERT INTO users (username, name, email, password_digest, admin, confirmed_at) VALUES ($1, $2, $3, $4, $5, CASE WHEN $6 THEN forge_now() END)
             ON CONFLICT (username) DO UPDATE SET name = excluded.name, email = excluded.email, admin = excluded.admin, updated_at = forge_now(),
               password_digest = coalesce(excluded.password_digest, users.password_digest), confirmed_at = coalesce(users.confirmed_at, excluded.confirmed_at)
             RETURNING id",
            &[&user.username, &user.name, &user.email, &digest, &user.admin, &confirmed],
        )
        .await?;
    let id: i64 = row.get("id");
    transaction
        .execute(
            "INSERT INTO namespaces (kind, path, name, owner_id) SELECT 'user', $1, $2, $3
             WHERE NOT EXISTS (SELECT 1 FROM namespaces WHERE kind = 'user' AND owner_id = $3) ON CONFLICT DO NOTHING",
            &[&user.username, &user.name, &id],
        )
        .await?;
    Ok(id)
}

/// Makes a user a member of a group, at a level.
///
/// # Errors
/// If the database is away.
pub async fn join(transaction: &Transaction<'_>, user: i64, group: i64, level: i32) -> Result<(), ApiError> {
    let sql = "INSERT INTO members (user_id, namespace_id, access_level) VALUES ($1, $2, $3)
        ON CONFLICT (user_id, namespace_id) DO UPDATE SET access_level = excluded.access_level";
    transaction.execute(sql, &[&user, &group, &level]).await?;
    Ok(())
}

/// Gives a user a token, known by its digest, for a year.
///
/// # Errors
/// If the database is away.
pub async fn add_token(
    transaction: &Transaction<'_>,
    user: i64,
    name: &str,
    digest: &str,
    scopes: &str,
) -> Result<(), ApiError> {
    let sql = "INSERT INTO personal_access_tokens (user_id, name, token_digest, scopes, expires_at)
        VALUES ($1, $2, $3, $4, (forge_now() + interval '365 days')::date) ON CONFLICT (token_digest) DO NOTHING";
    transaction.execute(sql, &[&user, &name, &digest, &scopes]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(content: &str) -> String {
        read(content.as_bytes()).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_wrong_credential_is_told_without_its_values() {
        let account = |field: &str| {
            format!(
                r#"{{"schema":1,"group":"g","accounts":[{{"username":"a","name":"A","email":"a@b","password":"sesame-sesame"{field}}}]}}"#
            )
        };
        assert!(read(account("").as_bytes()).is_ok());
        assert_eq!(
            refused(&account(r#","access_level":35"#)),
            "has in account 1 an access level that is none of 10, 20, 30, 40, 50"
        );
        assert_eq!(refused(r#"{"schema":2,"group":"g","accounts":[]}"#), "has schema 2; 1 is understood");
        let message = refused(&account(r#","admin":"sesame-sesame""#));
        assert!(
            message.starts_with("is not what is expected at line 1, column") && !message.contains("sesame"),
            "{message}"
        );
    }
}
