//! The `rave-forge` command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rave_forge::settings::Settings;
use rave_forge::{accounts, app, runner, setup};

#[derive(Parser)]
#[command(version, about = "Stand-in for GitLab's REST API")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer the API and git
    Serve(ConfigFile),
    /// Make the group, the bot, the OAuth applications and the runner, where they are missing
    Setup(ConfigFile),
    /// Make the accounts handed in as credential `rave.accounts`
    Accounts(ConfigFile),
    /// Ask the API for jobs and run them
    Runner(ConfigFile),
}

#[derive(clap::Args)]
struct ConfigFile {
    /// The settings file
    #[arg(long, value_name = "FILE", default_value = "/etc/rave/forge.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_ansi(false).with_target(false).init();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rave-forge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let (Command::Serve(file) | Command::Setup(file) | Command::Accounts(file) | Command::Runner(file)) = &command;
    let settings = Settings::read(&file.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Serve(_) => app::serve(settings).await,
            Command::Setup(_) => setup::run(&settings).await,
            Command::Accounts(_) => accounts::run(&settings).await,
            Command::Runner(_) => runner::run(&settings).await,
        }
    })
}
