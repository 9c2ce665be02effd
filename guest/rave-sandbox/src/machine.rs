//! The main process of a sandbox's unit: one machine, with one cable to a port forwarder, and nothing else to talk to.
//!
//! [`outside`] takes the two ports where the appliance's users reach them, and becomes [`inside`] in a user and a network namespace of its own,
//! for which nobody needs a privilege. There it makes a tap interface for the machine and forwards connections from the ports to it. The
//! namespace has no other interface, no route and no service, and nothing forwards the other way: from the machine there is nowhere to go.
//!
//! Ports, interface, namespace and machine belong to this process, so they end with it, and none of them needs the daemon to be alive.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::console::{Console, last_lines};

/// Where a sandbox's process finds its folder.
pub const HOME: &str = "/run/sandbox";
/// The machine's end of the cable, within its namespace.
pub const TAP: &str = "sandbox";
/// The forwarder's address on the cable.
const HERE: &str = "192.168.127.1/30";
/// The machine's address on the cable; its `init` knows it too.
const THERE: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 2);
/// Connections to one port at once.
const CONNECTIONS: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes the ports and goes on as [`inside`].
///
/// # Errors
/// If a port is taken, or namespaces cannot be made.
pub fn outside(home: &Path, ssh: SocketAddr, web: SocketAddr, command_line: &[OsString]) -> anyhow::Result<Infallible> {
    let listen =
        |address: SocketAddr| TcpListener::bind(address).with_context(|| format!("could not listen on {address}"));
    let (ssh, web) = (OwnedFd::from(listen(ssh)?), OwnedFd::from(listen(web)?));
    let program = std::env::current_exe().context("could not find this program")?;
    // The two listeners are handed over as standard input and output, which a program may keep.
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--net", "--"]).arg(program).args(["inside", "--home"]).arg(home);
    let error = unshare.arg("--").args(command_line).stdin(ssh).stdout(web).exec();
    Err(anyhow!(error).context("could not run unshare"))
}

/// Runs the machine until it ends. Standard input and output are the listening sockets.
///
/// # Errors
/// Always in the end: a machine that ends by itself has failed.
pub fn inside(home: &Path, command_line: &[OsString]) -> anyhow::Result<()> {
    let ssh = listener(io::stdin().as_fd()).context("standard input is no listening socket")?;
    let web = listener(io::stdout().as_fd()).context("standard output is no listening socket")?;
    make_cable()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(home.to_owned(), ssh, web, command_line))
}

fn listener(descriptor: impl AsFd) -> io::Result<TcpListener> {
    let listener = TcpListener::from(descriptor.as_fd().try_clone_to_owned()?);
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn make_cable() -> anyhow::Result<()> {
    ip(&["tuntap", "add", "dev", TAP, "mode", "tap", "user", "0"])?;
    ip(&["link", "set", "dev", TAP, "addrgenmode", "none"])?;
    ip(&["address", "add", HERE, "dev", TAP])?;
    ip(&["link", "set", "dev", TAP, "up"])
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().context("could not run ip")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

async fn run(home: PathBuf, ssh: TcpListener, web: TcpListener, command_line: &[OsString]) -> anyhow::Result<()> {
    let mut console = Console::open(&home).context("could not open the console's file")?;
    let mut command = tokio::process::Command::new("setpriv");
    // Whoever breaks out of the machine is nobody here either: without the privileges that its namespace gives to this process.
    command.args([
        "--pdeathsig=KILL",
        "--no-new-privs",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        "--",
    ]);
    command.args(command_line).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut machine = command.spawn().context("could not start the machine")?;
    let mut output = machine.stdout.take().context("the machine has no output")?;
    tokio::spawn(forward(tokio::net::TcpListener::from_std(ssh)?, SocketAddr::from((THERE, 22))));
    tokio::spawn(forward(tokio::net::TcpListener::from_std(web)?, SocketAddr::from((THERE, 80))));

    let mut buffer = vec![0; 4096];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => console.add(&buffer[..length]).context("could not write the console's file")?,
        }
    }
    let status = machine.wait().await.context("could not wait for the machine")?;
    for line in last_lines(&home, 10) {
        eprintln!("console: {line}");
    }
    bail!("the machine ended: {status}")
}

/// Carries every connection to the machine, and back what it answers.
async fn forward(listener: tokio::net::TcpListener, target: SocketAddr) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    // A connection that breaks is its two ends' business.
                    let _ = carry(client, target).await;
                    drop(place);
                });
            }
            // Too many open files, or a client that was gone: the next one may do better.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut machine = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await??;
    tokio::io::copy_bidirectional(&mut client, &mut machine).await?;
    Ok(())
}
