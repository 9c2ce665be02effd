//! The sandbox daemon, its command line, and what sandboxes' units run.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use rave_sandbox::client::{Answer, Daemon};
use rave_sandbox::keeper::Keeper;
use rave_sandbox::settings::{self, Settings};
use rave_sandbox::world::{System, ended};
use rave_sandbox::{api, backend, inventory, machine};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The settings file
    #[arg(long, global = true, default_value = "/etc/rave/sandbox.toml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API and look after the sandboxes
    Serve,
    /// Print all sandboxes
    List,
    /// Print one sandbox
    Show {
        /// Its name
        id: String,
        /// Wait until it is ready, has failed, or is gone
        #[arg(long)]
        wait: bool,
    },
    /// Start a sandbox
    Start(Start),
    /// End a sandbox
    Stop {
        /// Its name
        id: String,
        /// Wait until it is gone
        #[arg(long)]
        wait: bool,
    },
    /// Print what there is of sandboxes on this machine: units, processes, ports, taps, namespaces, disks, folders
    Inventory,
    /// The main process of a sandbox's unit
    #[command(hide = true)]
    Machine {
        #[arg(long)]
        home: PathBuf,
        #[arg(long)]
        ssh: SocketAddr,
        #[arg(long)]
        web: SocketAddr,
        #[arg(last = true, required = true)]
        command_line: Vec<OsString>,
    },
    /// The same process, once it has a network of its own
    #[command(hide = true)]
    Inside {
        #[arg(long)]
        home: PathBuf,
        #[arg(last = true, required = true)]
        command_line: Vec<OsString>,
    },
    /// The end of a sandbox's unit
    #[command(hide = true)]
    Ended {
        #[arg(long)]
        socket: PathBuf,
        folder: PathBuf,
    },
}

#[derive(clap::Args)]
struct Start {
    /// The project's path, such as rave/hello
    #[arg(long)]
    project: String,
    /// The project's number
    #[arg(long, default_value_t = 0)]
    project_id: u64,
    /// The merge request's number
    #[arg(long)]
    mr: u64,
    /// The commit, 40 hexadecimal digits
    #[arg(long)]
    sha: String,
    /// An SSH key that may enter; may be given several times
    #[arg(long = "key", required = true)]
    keys: Vec<String>,
    /// Who wants it
    #[arg(long, default_value = "root")]
    requested_by: String,
    /// How many seconds it may live
    #[arg(long)]
    ttl: Option<u64>,
    /// Wait until it is ready or has failed
    #[arg(long)]
    wait: bool,
}

fn main() -> ExitCode {
    let Cli { command, config } = Cli::parse();
    match run(command, &config) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rave-sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, config: &Path) -> anyhow::Result<ExitCode> {
    match command {
        Command::Machine { home, ssh, web, command_line } => match machine::outside(&home, ssh, web, &command_line)? {},
        Command::Inside { home, command_line } => machine::inside(&home, &command_line)?,
        Command::Ended { socket, folder } => {
            let result = std::env::var("SERVICE_RESULT").unwrap_or_default();
            ended(&folder, &socket, &result).with_context(|| format!("could not clean up `{}`", folder.display()))?;
        }
        Command::Inventory => {
            let inventory = inventory::take(&settings::read(config)?);
            println!("{}", serde_json::to_string_pretty(&inventory)?);
        }
        Command::Serve => serve(settings::read(config)?)?,
        Command::List | Command::Show { .. } | Command::Start(_) | Command::Stop { .. } => {
            let settings = settings::read(config)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let Answer { done, body } = runtime.block_on(ask(command, &settings))?;
            println!("{}", serde_json::to_string_pretty(&body)?);
            return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(command: Command, settings: &Settings) -> anyhow::Result<Answer> {
    let daemon = Daemon::at(&settings.socket)?;
    let starting = settings.limits.start_timeout + Duration::from_secs(60);
    let settled = |body: &Value| !matches!(body["state"].as_str(), Some("starting" | "stopping"));
    let one = |id: &str| format!("/sandboxes/{}", id.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_"));
    match command {
        Command::Show { id, wait: false } => daemon.ask(Method::GET, &one(&id), None).await,
        Command::Show { id, wait: true } => daemon.wait(&id, starting, settled).await,
        Command::Stop { id, wait } => {
            let answer = daemon.ask(Method::DELETE, &one(&id), None).await?;
            if wait && answer.done {
                daemon.wait(&id, Duration::from_secs(60), |_| false).await?;
            }
            Ok(answer)
        }
        Command::Start(start) => {
            let Start { project, project_id, mr, sha, keys, requested_by, ttl, wait } = start;
            let body = json!({
                "project": project, "project_id": project_id, "mr": mr, "sha": sha, "repository": "",
                "authorized_keys": keys, "requested_by": requested_by, "ttl_seconds": ttl
            });
            let answer = daemon.ask(Method::POST, "/sandboxes", Some(&body)).await?;
            match answer.body["id"].as_str() {
                Some(id) if wait && answer.done => {
                    let answer = daemon.wait(id, starting, settled).await?;
                    Ok(Answer { done: answer.body["state"] == "ready", body: answer.body })
                }
                _ => Ok(answer),
            }
        }
        _ => daemon.ask(Method::GET, "/sandboxes", None).await,
    }
}

fn serve(settings: Settings) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_ansi(false).with_target(false).init();
    fs::create_dir_all(&settings.state).with_context(|| format!("could not make `{}`", settings.state.display()))?;
    fs::set_permissions(&settings.state, Permissions::from_mode(0o700))?;
    let chosen = backend::check_files(&settings.files).and_then(|()| backend::choose(&settings));
    match &chosen {
        Ok(backend) => tracing::info!("sandboxes run on {}", backend.name()),
        Err(why) => tracing::warn!("no sandbox can run here: {why}"),
    }
    let name = chosen.as_ref().map(backend::Backend::name).map_err(Clone::clone);
    let world = Arc::new(System::new(settings.clone(), chosen.ok()));
    let keeper = Keeper::new(settings.clone(), name, world);
    let looking = Arc::clone(&keeper);
    std::thread::Builder::new().name("looks-after".into()).spawn(move || looking.look_after())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let served = runtime.block_on(listen(&settings, keeper));
    // Whoever is still being started goes on without us, or is removed by the next daemon.
    runtime.shutdown_background();
    served
}

async fn listen(settings: &Settings, keeper: Arc<Keeper>) -> anyhow::Result<()> {
    let socket = &settings.socket;
    let _ = fs::remove_file(socket);
    let listener = tokio::net::UnixListener::bind(socket)
        .with_context(|| format!("could not listen at `{}`", socket.display()))?;
    fs::set_permissions(socket, Permissions::from_mode(0o660))?;
    let mut end = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    sd_notify::notify(&[sd_notify::NotifyState::Ready])?;
    let served = axum::serve(listener, api::router(keeper, settings.limits.clone()));
    tokio::select! {
        served = served.into_future() => served.context("could not serve the API"),
        _ = end.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
