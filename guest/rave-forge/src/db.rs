//! The database: a small pool over the unix socket. It may be away at any time; who asks then gets [`ApiError::Unavailable`].

use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};

use crate::error::ApiError;
use crate::settings::Settings;

/// Parameters of a statement.
pub type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Connections to the database.
#[derive(Clone)]
pub struct Db(Pool);

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Makes the pool; connects to nothing yet.
    ///
    /// # Errors
    /// If the pool cannot be made.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&settings.database_socket)
            .user(&settings.database_user)
            .dbname(&settings.database_name)
            .application_name("rave-forge")
            .options(format!("-c rave.url={} -c timezone=UTC -c statement_timeout=30s -c lock_timeout=20s -c idle_in_transaction_session_timeout=120s", settings.url))
            .connect_timeout(Duration::from_secs(3));
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let wait = Some(Duration::from_secs(5));
        let pool = Pool::builder(manager)
            .max_size(8)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait, create: wait, recycle: wait })
            .build()?;
        Ok(Self(pool))
    }

    /// A connection, for a transaction.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn client(&self) -> Result<Client, ApiError> {
        Ok(self.0.get().await?)
    }

    /// All rows of a question.
    ///
    /// # Errors
    /// If the database is away or refuses.
    pub async fn rows(&self, sql: &str, values: Values<'_>) -> Result<Vec<Row>, ApiError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query(&statement, values).await?)
    }

    /// The row of a question that has at most one.
    ///
    /// # Errors
    /// If the database is away or refuses.
    pub async fn row(&self, sql: &str, values: Values<'_>) -> Result<Option<Row>, ApiError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// How many rows a change touched.
    ///
    /// # Errors
    /// If the database is away or refuses.
    pub async fn change(&self, sql: &str, values: Values<'_>) -> Result<u64, ApiError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.execute(&statement, values).await?)
    }
}

/// Whether an error says that a value is there already.
#[must_use]
pub fn is_taken(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::UNIQUE_VIOLATION)
}
