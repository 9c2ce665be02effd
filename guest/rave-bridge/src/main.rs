//! The `rave-bridge` program: the bridge, what checks it, and the agents.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rave_bridge::agent::{self, AgentType};
use rave_bridge::audit::{self, AuditError};
use rave_bridge::settings::{AuditSettings, Settings, SettingsError};
use rave_bridge::{bridge::Bridge, server};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// The exit status of what another start would not mend: wrong settings, a broken log.
const EX_CONFIG: u8 = 78;

#[derive(Parser)]
#[command(version, about = "Takes !rave commands from Matrix rooms and does what their sender may do")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the bridge
    Serve(Config),
    /// Check the settings and the secrets they name
    Check(Config),
    /// The audit log
    Audit {
        #[command(subcommand)]
        task: AuditTask,
    },
    /// Run an agent
    Agent {
        /// Which
        #[arg(value_parser = parse_agent)]
        agent: AgentType,
        /// Where its heartbeat is written
        #[arg(long, env = "RUNTIME_DIRECTORY")]
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
enum AuditTask {
    /// Check every line of the log against the one before it
    Verify(Config),
}

#[derive(clap::Args)]
struct Config {
    /// The settings file
    #[arg(long, default_value = "/etc/rave/bridge.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Serve(Config { config }) => serve(&config),
        Task::Check(Config { config }) => check(&config),
        Task::Audit { task: AuditTask::Verify(Config { config }) } => verify(&config),
        Task::Agent { agent, folder } => live(agent, &folder),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rave-bridge: {error:#}");
            if stays_wrong(&error) { ExitCode::from(EX_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn stays_wrong(error: &anyhow::Error) -> bool {
    error.is::<SettingsError>() || matches!(error.downcast_ref(), Some(AuditError::Broken(_)))
}

fn serve(config: &Path) -> anyhow::Result<()> {
    tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false).with_writer(std::io::stderr).init();
    let settings = Settings::read(config)?;
    rustls::crypto::ring::default_provider().install_default().map_err(|_| anyhow::anyhow!("TLS was set up twice"))?;
    let (log, memory) = audit::open(&settings.audit, &settings.audit_key)?;
    // Two threads, so that a long computation of one keeps the other free; the machine has no more cores to spare.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(8).enable_all().build()?;
    runtime.block_on(run(settings, log, memory))
}

async fn run(settings: Settings, log: audit::Log, memory: audit::Memory) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listen = settings.listen;
    let listener =
        tokio::net::TcpListener::bind(listen).await.with_context(|| format!("could not listen on {listen}"))?;
    let listen = listener.local_addr()?;
    let bridge = Bridge::new(settings, log, memory)?;
    sd_notify::notify(&[NotifyState::Ready]).context("could not tell the service manager")?;
    tracing::info!(%listen, "serving");
    let watching = tokio::spawn(Arc::clone(&bridge).watch_sandboxes());
    let announcing = tokio::spawn({
        let bridge = Arc::clone(&bridge);
        async move { bridge.announce().await }
    });
    // What is under way is not waited for: the log knows it, and the next start takes it up.
    let ended = tokio::select! {
        served = axum::serve(listener, server::router(Arc::clone(&bridge))) => served.context("could not serve any more"),
        reason = bridge.log_failed() => Err(anyhow::anyhow!(reason)),
        _ = stop.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    watching.abort();
    announcing.abort();
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    ended
}

fn check(config: &Path) -> anyhow::Result<()> {
    let settings = Settings::read(config)?;
    println!("{}: good, for {} on {}", config.display(), settings.user_id, settings.listen);
    Ok(())
}

fn verify(config: &Path) -> anyhow::Result<()> {
    let AuditSettings { audit: path, key } = AuditSettings::read(config)?;
    let found = audit::verify(&path, &key, |_| {})?;
    println!("{}: {} records, unbroken, ends with {}", path.display(), found.records, found.last_hash);
    if !found.torn.is_empty() {
        println!("after them {} bytes of a line that is being written, or was cut off by a crash", found.torn.len());
    }
    Ok(())
}

fn live(agent: AgentType, folder: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(agent::live(agent, folder))
        .with_context(|| format!("agent {} could not show that it lives", agent.name()))
}

fn parse_agent(name: &str) -> Result<AgentType, String> {
    AgentType::parse(name).ok_or_else(|| format!("agents are: {}", AgentType::ALL.map(AgentType::name).join(", ")))
}
