//! Which account a Matrix user signed in with. The homeserver's database says so; the bridge's role there may read this one table.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
use tokio_postgres::NoTls;
use tokio_postgres::types::Type;

use crate::settings;

/// How long one question may take, with the connecting.
const PATIENCE: Duration = Duration::from_secs(4);
/// Questions are short; more connections would only cost the database memory.
const CONNECTIONS: usize = 2;
const QUERY: &str = "SELECT external_id FROM user_external_ids WHERE auth_provider = $1 AND user_id = $2";

/// The way to the database.
#[derive(Debug, Clone)]
pub struct Directory {
    pool: Pool,
    provider: String,
}

/// Why the database does not say who somebody is.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// No connection can be had.
    #[error("could not connect to the homeserver's database")]
    Connect(#[from] PoolError),
    /// The question failed.
    #[error("could not ask the homeserver's database")]
    Ask(#[from] tokio_postgres::Error),
    /// It took too long.
    #[error("the homeserver's database did not answer within {} s", PATIENCE.as_secs())]
    Late,
}

impl Directory {
    /// Prepares the way; nothing is connected yet.
    ///
    /// # Errors
    /// If the settings name no database.
    pub fn new(settings: &settings::Directory) -> Result<Self, anyhow::Error> {
        let mut config: tokio_postgres::Config = settings.database.parse()?;
        config.application_name("rave-bridge").connect_timeout(PATIENCE);
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager).max_size(CONNECTIONS).runtime(Runtime::Tokio1).build()?;
        Ok(Self { pool, provider: settings.provider.clone() })
    }

    /// The number of the account behind a Matrix user, if there is exactly one.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn external_id(&self, user_id: &str) -> Result<Option<u64>, DirectoryError> {
        let ask = async {
            let client = self.pool.get().await?;
            let rows = client.query_typed(QUERY, &[(&self.provider, Type::TEXT), (&user_id, Type::TEXT)]).await?;
            let [row] = rows.as_slice() else { return Ok(None) };
            Ok(row.try_get::<_, String>(0)?.parse().ok())
        };
        tokio::time::timeout(PATIENCE, ask).await.map_err(|_| DirectoryError::Late)?
    }
}
