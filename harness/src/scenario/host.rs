//! Commands on the machine that runs the harness, and connections from it to ports of the guest.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rustix::process::Signal;

use crate::group::{Group, Unwaited};
use crate::guest::{Captured, Exit};
use crate::wait::WaitError;

/// Why a command on the host brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It could not be started or followed.
    #[error("could not run /bin/sh")]
    Run(#[from] io::Error),
    /// It took too long and was ended.
    #[error("it did not end within {:.1} s and was killed", .0.as_secs_f64())]
    TooLong(Duration),
    /// The run was interrupted.
    #[error("the run was interrupted")]
    Interrupted,
}

/// Where a command is run.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The folder.
    pub folder: &'a Utf8Path,
    /// What the environment has besides the harness's own.
    pub env: &'a [(String, String)],
}

/// Runs `command` with `/bin/sh -c` in its place. Output goes to files first: a background process that keeps a pipe open
/// would hold up a reader for ever.
///
/// # Errors
/// If it cannot be run, does not end before `deadline`, or the run is interrupted.
pub fn run(
    command: &str,
    stdin: Option<&str>,
    place: Place<'_>,
    deadline: Instant,
    interrupted: &AtomicBool,
) -> Result<Captured, HostError> {
    let started = Instant::now();
    let mut output = [tempfile::tempfile()?, tempfile::tempfile()?];
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).current_dir(place.folder);
    shell.envs(place.env.iter().map(|(name, value)| (name, value)));
    shell.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    shell.stdout(output[0].try_clone()?).stderr(output[1].try_clone()?);
    let mut group = Group::spawn(&mut shell)?;
    if let (Some(mut pipe), Some(text)) = (group.child.stdin.take(), stdin.map(str::to_owned)) {
        // A command that does not read must not hold us up; the thread ends with the pipe.
        thread::spawn(move || pipe.write_all(text.as_bytes()));
    }
    let status = group.wait(deadline, interrupted);
    let took = started.elapsed();
    drop(group);
    let status = status.map_err(|error| match error {
        WaitError::Deadline { .. } => HostError::TooLong(took),
        WaitError::Never(Unwaited::Interrupted) => HostError::Interrupted,
        WaitError::Never(Unwaited::Failed(error)) => error.into(),
    })?;
    let exit = match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal_name(signal.unwrap_or_default())),
    };
    Ok(Captured { exit, stdout: rewound(&mut output[0])?, stderr: rewound(&mut output[1])?, took })
}

fn rewound(file: &mut File) -> io::Result<Vec<u8>> {
    use std::io::Seek as _;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn signal_name(number: i32) -> String {
    Signal::from_named_raw(number)
        .map(|signal| format!("{signal:?}").trim_start_matches("Signal::").trim_start_matches("SIG").to_owned())
        .unwrap_or_else(|| number.to_string())
}

/// How long a silent port is listened to. QEMU's network accepts the connection itself before it asks the guest,
/// so only an answer tells an open port from a closed one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects, sends, and returns the first bytes that come back: none from a port that is closed or silent.
///
/// # Errors
/// If there is no connection at all.
pub fn ask_port(address: SocketAddr, send: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let patience = PATIENCE.min(deadline.saturating_duration_since(Instant::now())).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut said = vec![0; 4096];
    // A closed port may have reset the connection already, which is no answer either.
    let length = stream.write_all(send).and_then(|()| stream.read(&mut said)).unwrap_or(0);
    said.truncate(length);
    Ok(said)
}
