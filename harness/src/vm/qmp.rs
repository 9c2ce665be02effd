//! QEMU's control socket. Commands are typed (`qapi`), events are the harness's own.
//!
//! `qapi` has three habits that a test harness cannot have: an `execute` that is given up breaks the connection and later aborts the process,
//! an event it does not know ends the connection, and its events must be read or no reply arrives. So it sits behind one task that never
//! gives up an `execute` (callers give up waiting for the task's answer instead), and it sees replies only: a relay between it and the
//! socket logs every line both ways and keeps the events for itself.

use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// How long QEMU may take to answer. It answers in under a millisecond; a QEMU that does not within this time is lost.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How many characters are kept of a line that is no QMP.
const MOST_GARBAGE: usize = 200;

/// A handle to the control socket. Clones are cheap and lead to the same connection.
#[derive(Clone)]
pub struct Qmp {
    jobs: mpsc::UnboundedSender<Job>,
}

/// What QEMU says by itself, as far as it matters to a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guest's kernel panicked.
    Panicked,
    /// The machine was or would have been shut down or reset.
    Shutdown {
        /// Whether the guest did it.
        guest: bool,
        /// QEMU's word for the reason, such as `guest-shutdown` or `guest-reset`.
        reason: String,
    },
    /// The machine was reset.
    Reset {
        /// Whether the guest did it.
        guest: bool,
    },
    /// The machine stands still.
    Stopped,
    /// The machine goes on.
    Resumed,
    /// A disk could not be read or written.
    DiskError {
        /// Whether the machine stands still for it, since the guest cannot be told (the host's disk is full).
        stopped: bool,
        /// The system's words.
        reason: String,
    },
    /// Not an event: QEMU said something that is no QMP, and is not listened to any more.
    Garbage(String),
    /// Any other event, by its name.
    Other(String),
}

/// How far the writing or reading of a machine's state has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// It goes on.
    Underway,
    /// It is done.
    Done,
    /// It failed, in QEMU's words.
    Failed(String),
}

/// Why a command brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection could not be set up.
    #[error("could not set up the control connection")]
    Open(#[source] io::Error),
    /// QEMU refused the command.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command's name.
        command: &'static str,
        /// QEMU's words.
        reason: String,
    },
    /// QEMU answered in a way that is not understood, or the connection ended instead.
    #[error("no answer to `{command}`: the control connection failed")]
    Broken {
        /// The command's name.
        command: &'static str,
        /// How it failed.
        source: io::Error,
    },
    /// The connection has ended.
    #[error("could not send `{command}`: the control connection has ended")]
    Ended {
        /// The command's name.
        command: &'static str,
    },
    /// No answer in time: the machine is lost.
    #[error("no answer to `{command}` within {} s", within.as_secs_f32())]
    Silent {
        /// The command's name.
        command: &'static str,
        /// How long was waited.
        within: Duration,
    },
}

type Service = Arc<QapiService<QmpStreamTokio<WriteHalf<DuplexStream>>>>;
type Job = Box<dyn FnOnce(Service) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

impl Qmp {
    /// Sets up the connection: reads QEMU's greeting, agrees on capabilities, and starts the tasks behind the handle. Events come out of
    /// the receiver, which ends when the connection ends.
    ///
    /// # Errors
    /// A connection that ends or says something else than QMP.
    pub async fn open(stream: UnixStream, log: Log) -> Result<(Self, mpsc::UnboundedReceiver<Event>), QmpError> {
        let (inside, outside) = tokio::io::duplex(1 << 16);
        let (from_qemu, to_qemu) = stream.into_split();
        let (from_qapi, to_qapi) = tokio::io::split(outside);
        let (event_sender, events) = mpsc::unbounded_channel();
        tokio::spawn(relay_answers(BufReader::new(from_qemu), to_qapi, event_sender, log.clone()));
        tokio::spawn(relay_commands(BufReader::new(from_qapi), to_qemu, log));

        let stream = QmpStreamTokio::open(inside).await.map_err(QmpError::Open)?;
        let (service, replies) = stream.negotiate().await.map_err(QmpError::Open)?.into_parts();
        replies.spawn_tokio();
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(act(Arc::new(service), queue));
        Ok((Self { jobs }, events))
    }

    /// Sends a command and waits for its answer, at most `within`.
    ///
    /// # Errors
    /// A refusal, the end of the connection, or silence. After silence the command is still under way and every later one waits behind
    /// it: the machine is lost.
    pub async fn execute<C>(&self, command: C, within: Duration) -> Result<C::Ok, QmpError>
    where
        C: qmp::QmpCommand + Send + 'static,
        C::Ok: Send + 'static,
    {
        let answer = self.send(command).ok_or(QmpError::Ended { command: C::NAME })?;
        match tokio::time::timeout(within, answer).await {
            Err(_) => Err(QmpError::Silent { command: C::NAME, within }),
            Ok(Err(_)) => Err(QmpError::Ended { command: C::NAME }),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(qapi::ExecuteError::Qapi(error)))) => {
                Err(QmpError::Refused { command: C::NAME, reason: error.desc })
            }
            Ok(Ok(Err(qapi::ExecuteError::Io(source)))) => Err(QmpError::Broken { command: C::NAME, source }),
        }
    }

    /// Sends a command and does not wait for its answer. For what must be done while something is being dropped.
    pub fn post<C>(&self, command: C)
    where
        C: qmp::QmpCommand + Send + 'static,
        C::Ok: Send + 'static,
    {
        drop(self.send(command));
    }

    /// Whether the guest runs, stands still, or something else, in QEMU's word (`running`, `paused`, `guest-panicked`).
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn status(&self, within: Duration) -> Result<String, QmpError> {
        let info = self.execute(qmp::query_status {}, within).await?;
        Ok(serde_json::to_value(info.status).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default())
    }

    /// Writes a PNG of the screen.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn screenshot(&self, path: &Path, within: Duration) -> Result<(), QmpError> {
        let filename = path.to_string_lossy().into_owned();
        let format = Some(qmp::ImageFormat::png);
        self.execute(qmp::screendump { filename, device: None, head: None, format }, within).await.map(drop)
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn power_button(&self) -> Result<(), QmpError> {
        self.execute(qmp::system_powerdown {}, ANSWER_WITHIN).await.map(drop)
    }

    /// Tells QEMU to end. The connection ends with it, with or without an answer.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn quit(&self, within: Duration) -> Result<(), QmpError> {
        self.execute(qmp::quit {}, within).await.map(drop)
    }

    /// Lets the guest stand still.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.execute(qmp::stop {}, ANSWER_WITHIN).await.map(drop)
    }

    /// Lets the guest go on.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn go_on(&self) -> Result<(), QmpError> {
        self.execute(qmp::cont {}, ANSWER_WITHIN).await.map(drop)
    }

    /// Agrees with QEMU on how a machine's state is written or read.
    ///
    /// # Errors
    /// As [`Qmp::execute`]; a QEMU that does not know the capability refuses.
    pub async fn set_capability(&self, capability: qmp::MigrationCapability) -> Result<(), QmpError> {
        let capabilities = vec![qmp::MigrationCapabilityStatus { capability, state: true }];
        self.execute(qmp::migrate_set_capabilities { capabilities }, ANSWER_WITHIN).await.map(drop)
    }

    /// Takes a capability back.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn unset_capability(&self, capability: qmp::MigrationCapability) -> Result<(), QmpError> {
        let capabilities = vec![qmp::MigrationCapabilityStatus { capability, state: false }];
        self.execute(qmp::migrate_set_capabilities { capabilities }, ANSWER_WITHIN).await.map(drop)
    }

    /// Begins to write the machine's state into a file.
    ///
    /// # Errors
    /// As [`Qmp::execute`]. What goes wrong later is in [`Qmp::transfer`].
    pub async fn write_state(&self, path: &Path) -> Result<(), QmpError> {
        let uri = Some(file_uri(path));
        self.execute(qmp::migrate { uri, channels: None, detach: None, resume: None }, ANSWER_WITHIN).await.map(drop)
    }

    /// Begins to read a machine's state from a file.
    ///
    /// # Errors
    /// As [`Qmp::execute`]. What goes wrong later ends QEMU.
    pub async fn read_state(&self, path: &Path) -> Result<(), QmpError> {
        let uri = Some(file_uri(path));
        self.execute(qmp::migrate_incoming { uri, channels: None, exit_on_error: None }, ANSWER_WITHIN).await.map(drop)
    }

    /// How far the writing or reading of a state has come.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn transfer(&self, within: Duration) -> Result<Transfer, QmpError> {
        let info = self.execute(qmp::query_migrate {}, within).await?;
        Ok(match info.status {
            Some(qmp::MigrationStatus::completed) => Transfer::Done,
            Some(qmp::MigrationStatus::failed | qmp::MigrationStatus::cancelled) => {
                Transfer::Failed(info.error_desc.unwrap_or_else(|| "QEMU does not say why".to_owned()))
            }
            _ => Transfer::Underway,
        })
    }

    /// Gives a line to QEMU's monitor for people, and returns what it printed.
    ///
    /// # Errors
    /// As [`Qmp::execute`]. The monitor reports its own errors in what it prints.
    pub async fn monitor(&self, command_line: String) -> Result<String, QmpError> {
        self.execute(monitor_line(command_line), ANSWER_WITHIN).await
    }

    fn send<C>(&self, command: C) -> Option<oneshot::Receiver<Result<C::Ok, qapi::ExecuteError>>>
    where
        C: qmp::QmpCommand + Send + 'static,
        C::Ok: Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let job: Job = Box::new(move |service| {
            Box::pin(async move {
                // The caller may have stopped waiting; the answer is taken off the wire all the same.
                let _ = sender.send(service.execute(command).await);
            })
        });
        self.jobs.send(job).ok().map(|()| answer)
    }
}

fn file_uri(path: &Path) -> String {
    // QEMU looks for an offset after a comma; the paths here are the harness's own and have none.
    format!("file:{}", path.display())
}

/// The QMP command behind [`Qmp::monitor`].
#[must_use]
pub fn monitor_line(command_line: String) -> qmp::human_monitor_command {
    qmp::human_monitor_command { command_line, cpu_index: None }
}

/// Where every QMP message is written, one JSON object per line: time, direction (`to`, `from`) and the message.
#[derive(Debug, Clone)]
pub struct Log {
    file: Arc<Mutex<File>>,
    to_stderr: bool,
}

impl Log {
    /// A log at `path`, shown on stderr too if `to_stderr`.
    ///
    /// # Errors
    /// What the system said.
    pub fn create(path: &Path, to_stderr: bool) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file: Arc::new(Mutex::new(file)), to_stderr })
    }

    fn write(&self, direction: &str, line: &[u8]) {
        let message = String::from_utf8_lossy(line);
        // What is no JSON must not make the log none.
        let message = match serde_json::from_str::<IgnoredAny>(&message) {
            Ok(_) => message.trim().to_owned(),
            Err(_) => Value::from(&*message).to_string(),
        };
        let at = jiff::Timestamp::now();
        let entry = format!("{{\"at\":\"{at:.3}\",\"{direction}\":{message}}}\n");
        if self.to_stderr {
            eprint!("qmp: {entry}");
        }
        if let Ok(mut file) = self.file.lock() {
            // A log that cannot be written must not end a run.
            let _ = file.write_all(entry.as_bytes());
        }
    }
}

/// Runs one command after the other, each to its end.
async fn act(service: Service, mut queue: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = queue.recv().await {
        job(service.clone()).await;
    }
}

/// From QEMU to `qapi`: everything but events.
async fn relay_answers(
    mut from_qemu: BufReader<tokio::net::unix::OwnedReadHalf>,
    mut to_qapi: WriteHalf<DuplexStream>,
    events: mpsc::UnboundedSender<Event>,
    log: Log,
) {
    let mut line = Vec::new();
    while matches!(from_qemu.read_until(b'\n', &mut line).await, Ok(1..)) {
        log.write("from", &line);
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            let beginning: String = String::from_utf8_lossy(&line).trim_end().chars().take(MOST_GARBAGE).collect();
            let _ = events.send(Event::Garbage(beginning));
            break;
        };
        match event(&message) {
            Some(event) => drop(events.send(event)),
            None if to_qapi.write_all(&line).await.is_err() => break,
            None => {}
        }
        line.clear();
    }
    // Half of a split stream does not close by being dropped.
    let _ = to_qapi.shutdown().await;
}

/// From `qapi` to QEMU.
async fn relay_commands(
    mut from_qapi: BufReader<ReadHalf<DuplexStream>>,
    mut to_qemu: tokio::net::unix::OwnedWriteHalf,
    log: Log,
) {
    let mut line = Vec::new();
    while matches!(from_qapi.read_until(b'\n', &mut line).await, Ok(1..)) {
        log.write("to", &line);
        if to_qemu.write_all(&line).await.is_err() {
            break;
        }
        line.clear();
    }
}

fn event(message: &Value) -> Option<Event> {
    let name = message.get("event")?.as_str()?;
    let data = message.get("data");
    let guest = || data.and_then(|data| data.get("guest")?.as_bool()).unwrap_or_default();
    let reason = || data.and_then(|data| Some(data.get("reason")?.as_str()?.to_owned())).unwrap_or_default();
    Some(match name {
        "GUEST_PANICKED" => Event::Panicked,
        "SHUTDOWN" => Event::Shutdown { guest: guest(), reason: reason() },
        "RESET" => Event::Reset { guest: guest() },
        "STOP" => Event::Stopped,
        "RESUME" => Event::Resumed,
        "BLOCK_IO_ERROR" => {
            let text = |name| data.and_then(|data| data.get(name)?.as_str()).unwrap_or_default();
            Event::DiskError { stopped: text("action") == "stop", reason: text("reason").to_owned() }
        }
        other => Event::Other(other.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that greets, answers each line with the next of `answers`, and then ends. `None` is no answer at all.
    async fn fake(
        answers: &[Option<&'static str>],
    ) -> (Result<(Qmp, mpsc::UnboundedReceiver<Event>), QmpError>, String) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let answers = answers.to_vec();
        tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            let mut lines = BufReader::new(read).lines();
            let greeting = "{\"QMP\":{\"version\":{\"qemu\":{\"micro\":2,\"minor\":0,\"major\":10},\"package\":\"\"},\"capabilities\":[\"oob\"]}}\n";
            write.write_all(greeting.as_bytes()).await.unwrap();
            for answer in [Some("{\"return\":{}}")].into_iter().chain(answers) {
                if lines.next_line().await.unwrap().is_none() {
                    return;
                }
                match answer {
                    Some(answer) => write.write_all(format!("{answer}\n").as_bytes()).await.unwrap(),
                    None => tokio::time::sleep(Duration::from_millis(300)).await,
                }
            }
        });
        let opened = Qmp::open(ours, Log::create(log.path(), false).unwrap()).await;
        (opened, std::fs::read_to_string(log.path()).unwrap())
    }

    const SOON: Duration = Duration::from_millis(100);
    const RUNNING: &str = "{\"return\":{\"status\":\"running\",\"running\":true,\"singlestep\":false}}";

    #[tokio::test]
    async fn events_nobody_knows_do_no_harm() {
        let answer = "{\"event\":\"FROM_THE_FUTURE\",\"data\":{\"x\":1},\"timestamp\":{}}\n{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}\n\
                      {\"return\":{\"status\":\"running\",\"running\":true,\"singlestep\":false}}";
        let (opened, log) = fake(&[Some(answer), Some(RUNNING)]).await;
        let (qmp, mut events) = opened.unwrap();
        assert_eq!(qmp.status(ANSWER_WITHIN).await.unwrap(), "running");
        assert_eq!(qmp.status(ANSWER_WITHIN).await.unwrap(), "running");
        assert_eq!(events.recv().await, Some(Event::Other("FROM_THE_FUTURE".into())));
        assert_eq!(events.recv().await, Some(Event::Shutdown { guest: true, reason: "guest-reset".into() }));
        assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
        assert!(log.contains("qmp_capabilities"), "{log}");
    }

    #[tokio::test]
    async fn what_is_no_qmp_ends_the_connection_and_is_shown() {
        let (opened, _) = fake(&[Some(
            "{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"action\":\"stop\",\"reason\":\"full\"}}\nHTTP/1.1 200 OK",
        )])
        .await;
        let (qmp, mut events) = opened.unwrap();
        let error = qmp.status(ANSWER_WITHIN).await.unwrap_err();
        assert!(matches!(error, QmpError::Broken { .. } | QmpError::Ended { .. }), "{error:?}");
        assert_eq!(events.recv().await, Some(Event::DiskError { stopped: true, reason: "full".into() }));
        assert_eq!(events.recv().await, Some(Event::Garbage("HTTP/1.1 200 OK".into())));
        assert_eq!(events.recv().await, None);
    }

    #[tokio::test]
    async fn silence_is_an_answer_in_time_and_a_late_answer_does_no_harm() {
        let (opened, _) = fake(&[None, Some("{\"return\":{}}"), Some(RUNNING)]).await;
        let (qmp, _events) = opened.unwrap();
        assert!(matches!(qmp.status(SOON).await, Err(QmpError::Silent { command: "query-status", .. })));
        // The first is still under way, so this waits behind it, and ends with the connection.
        assert!(matches!(qmp.status(SOON).await, Err(QmpError::Silent { .. })));
    }

    #[tokio::test]
    async fn a_refusal_and_an_end_are_told_apart() {
        let (opened, _) = fake(&[Some("{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}")]).await;
        let (qmp, mut events) = opened.unwrap();
        assert!(matches!(qmp.status(ANSWER_WITHIN).await, Err(QmpError::Refused { reason, .. }) if reason == "no"));
        let ended = qmp.status(ANSWER_WITHIN).await.unwrap_err();
        assert!(matches!(ended, QmpError::Broken { .. } | QmpError::Ended { .. }), "{ended:?}");
        assert_eq!(events.recv().await, None);
    }
}
