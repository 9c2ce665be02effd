//! Runs a program that builds an image: progress line by line, everything into a log, a limit, an end on interruption.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::group::{Group, Unwaited};
use crate::wait::WaitError;
use camino::{Utf8Path, Utf8PathBuf};

/// Lines of the log that an error shows.
const TAIL: usize = 20;

/// How long a build that is to end may clean up.
const TO_CLEAN_UP: Duration = Duration::from_secs(10);

/// What a build is given besides its command.
pub struct Limits<'a> {
    /// The longest it may take.
    pub time: Duration,
    /// Where everything it says is kept.
    pub log: &'a Utf8Path,
    /// Set when the run is to end.
    pub interrupted: &'a AtomicBool,
    /// Called with every line it says on stderr.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// Why a build brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It could not be started.
    #[error("could not start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Its log could not be written.
    #[error("could not write the build log `{path}`")]
    Log {
        /// The log.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("`{program}` ended with {status}; its last lines (all in `{log}`):\n{tail}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: Utf8PathBuf,
        /// The log's end.
        tail: String,
    },
    /// It took too long.
    #[error("`{program}` took longer than {seconds} s and was ended; its last lines (all in `{log}`):\n{tail}")]
    TooLong {
        /// The program.
        program: String,
        /// The limit.
        seconds: u64,
        /// Its log.
        log: Utf8PathBuf,
        /// The log's end.
        tail: String,
    },
    /// The run was interrupted.
    #[error("interrupted while `{program}` was running")]
    Interrupted {
        /// The program.
        program: String,
    },
}

/// Runs `command` to its end and returns what it wrote on stdout.
///
/// # Errors
/// If it cannot be started, fails, takes too long, or the run is interrupted.
pub fn run(mut command: Command, limits: &Limits<'_>) -> Result<String, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let log = File::create(limits.log).map_err(|source| BuildError::Log { path: limits.log.to_owned(), source })?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group =
        Group::spawn(&mut command).map_err(|source| BuildError::Start { program: program.clone(), source })?;
    let stdout = group.child.stdout.take();
    let stderr = group.child.stderr.take();
    thread::scope(|scope| {
        let output = scope.spawn(move || {
            let mut text = String::new();
            stdout.map(|mut stream| stream.read_to_string(&mut text));
            text
        });
        let last_lines = scope.spawn(|| stderr.map(|stream| follow(stream, log, limits.progress)));
        let deadline = Instant::now() + limits.time;
        let ended = group.wait(deadline, limits.interrupted);
        if ended.is_err() {
            // A build cleans up after itself if it is given a moment.
            group.terminate();
            let moment = Instant::now() + TO_CLEAN_UP;
            let _ = group.wait(moment, &AtomicBool::new(false));
        }
        // The readers end when the last process of the group has let go of the pipes.
        drop(group);
        let output = output.join().unwrap_or_default();
        let tail = last_lines.join().ok().flatten().unwrap_or_default();
        match ended {
            Ok(status) if status.success() => Ok(output),
            Ok(status) => Err(BuildError::Failed { program, status, log: limits.log.to_owned(), tail }),
            Err(WaitError::Deadline { .. }) => {
                Err(BuildError::TooLong { program, seconds: limits.time.as_secs(), log: limits.log.to_owned(), tail })
            }
            Err(WaitError::Never(Unwaited::Interrupted)) => Err(BuildError::Interrupted { program }),
            Err(WaitError::Never(Unwaited::Failed(source))) => Err(BuildError::Start { program, source }),
        }
    })
}

/// Keeps every line in the log, tells it, and returns the last of them.
fn follow(stream: impl Read, mut log: File, progress: &(dyn Fn(&str) + Sync)) -> String {
    let mut tail = VecDeque::with_capacity(TAIL);
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let _ = writeln!(log, "{line}");
        progress(&line);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    Vec::from(tail).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_there_however_slowly_they_are_shown() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 30 >&2; exit 3"]);
        let limits = Limits {
            time: Duration::from_secs(60),
            log: Utf8Path::new("/dev/null"),
            interrupted: &AtomicBool::new(false),
            progress: &|_| thread::sleep(Duration::from_millis(10)),
        };
        let Err(BuildError::Failed { tail, .. }) = run(command, &limits) else { panic!("it ends with 3") };
        let expected: Vec<String> = (11..=30).map(|line| line.to_string()).collect();
        assert_eq!(tail, expected.join("\n"));
    }
}
