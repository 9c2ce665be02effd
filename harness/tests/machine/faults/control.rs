//! Somebody between QEMU and the harness on the control connection, who does not pass everything on.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// What becomes of the connection from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Everything is passed on, until somebody says otherwise.
    Whole,
    /// It ends before QEMU's greeting.
    Closed,
    /// Something else than a greeting comes.
    Garbage,
    /// An event that nobody knows comes right after the greeting and before every answer.
    Unknown,
    /// This command is refused.
    Refuses(&'static str),
}

/// What is no QMP.
pub const GARBAGE: &str = "HTTP/1.1 400 Bad Request";
/// An event of a QEMU of the future.
pub const UNKNOWN: &str =
    r#"{"event":"FROM_THE_FUTURE","data":{"x":[1,null]},"timestamp":{"seconds":1,"microseconds":2}}"#;

/// The one between.
pub struct Proxy {
    harness: Arc<Mutex<Harness>>,
}

/// Its ends to the harness, of all machines, and whether it passes anything on.
#[derive(Default)]
struct Harness {
    ends: Vec<UnixStream>,
    silent: bool,
}

impl Proxy {
    /// Takes QEMU's connections at `path`, and finds in `path.PID` where that QEMU was to connect.
    pub fn start(path: &Path, control: Control) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let harness = Arc::<Mutex<Harness>>::default();
        let (path, shared) = (path.to_owned(), Arc::clone(&harness));
        // It ends with the test's process; nobody connects to it once the project's folder is gone.
        thread::spawn(move || {
            for qemu in listener.incoming().flatten() {
                let pid = rustix::net::sockopt::socket_peercred(&qemu).unwrap().pid;
                let real = fs::read_to_string(format!("{}.{}", path.display(), pid.as_raw_nonzero())).unwrap();
                connect(qemu, PathBuf::from(real), control, &shared);
            }
        });
        Self { harness }
    }

    /// Says something to the harness that QEMU did not say.
    pub fn say(&self, line: &str) {
        self.harness.lock().unwrap().say(line.as_bytes());
    }

    /// Ends all connections.
    pub fn hang_up(&self) {
        self.harness.lock().unwrap().ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }

    /// Passes nothing on any more.
    pub fn fall_silent(&self) {
        self.harness.lock().unwrap().silent = true;
    }
}

impl Harness {
    fn say(&mut self, line: &[u8]) {
        self.ends.iter_mut().for_each(|end| drop(write_line(end, line)));
    }
}

fn write_line(end: &mut UnixStream, line: &[u8]) -> std::io::Result<()> {
    end.write_all(&[line.trim_ascii_end(), b"\n"].concat())
}

fn connect(qemu: UnixStream, real: PathBuf, control: Control, shared: &Arc<Mutex<Harness>>) {
    let mut harness = UnixStream::connect(real).unwrap();
    match control {
        // Both ends go with this function; QEMU itself does not mind.
        Control::Closed => return,
        Control::Garbage => drop(write_line(&mut harness, GARBAGE.as_bytes())),
        Control::Whole | Control::Unknown | Control::Refuses(_) => {}
    }
    let end = harness.try_clone().unwrap();
    shared.lock().unwrap().ends.push(end.try_clone().unwrap());
    let (from_qemu, to_qemu) = (qemu.try_clone().unwrap(), qemu);
    let (answers, commands) = (Arc::clone(shared), Arc::clone(shared));
    let mut to_harness = end;
    let mut refusals = to_harness.try_clone().unwrap();
    thread::spawn(move || {
        for line in BufReader::new(from_qemu).split(b'\n').map_while(Result::ok) {
            // With the lock held, since somebody else may say something.
            let shared = answers.lock().unwrap();
            if shared.silent {
                continue;
            }
            if control == Control::Unknown && write_line(&mut to_harness, UNKNOWN.as_bytes()).is_err() {
                break;
            }
            if write_line(&mut to_harness, &line).is_err() {
                break;
            }
        }
        let _ = to_harness.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let mut to_qemu = to_qemu;
        for line in BufReader::new(harness).split(b'\n').map_while(Result::ok) {
            let shared = commands.lock().unwrap();
            if shared.silent {
                continue;
            }
            let command: serde_json::Value = serde_json::from_slice(&line).unwrap();
            if matches!(control, Control::Refuses(refused) if command["execute"] == refused) {
                let mut refusal = serde_json::json!({"error": {"class": "GenericError", "desc": "refused on purpose"}});
                if let Some(id) = command.get("id") {
                    refusal["id"] = id.clone();
                }
                let _ = write_line(&mut refusals, refusal.to_string().as_bytes());
            } else if write_line(&mut to_qemu, &line).is_err() {
                break;
            }
        }
    });
}
