//! Stand-in for Grafana's login: an OpenID client with Grafana's routes, cookies and JSON, below a path. It signs in, says who one is, and
//! has no dashboards. Sessions are in memory: they end with the program.

mod cookie;
mod login;
mod provider;
mod routes;
mod sessions;
mod settings;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::provider::Provider;
use crate::routes::App;
use crate::settings::Settings;

/// Stand-in for Grafana's login.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Settings file, TOML.
    #[arg(long, default_value = "/etc/rave/grafana.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false).init();
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            error!("{cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let settings = Settings::read(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let listen = settings.listen;
    let provider = Provider::new(&settings)?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("could not listen on {listen}"))?;
    let mut end = signal(SignalKind::terminate())?;
    let app = routes::router(Arc::new(App::new(settings, provider)));
    info!("listening on {listen}; sessions are in memory");
    sd_notify::notify(&[NotifyState::Ready]).context("could not tell systemd that it serves")?;
    let told = async move {
        end.recv().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(told).await?;
    Ok(())
}
