//! The system around the daemon: systemd, folders, ports, time. Everything that decides is elsewhere and can be tried on another world.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;

use crate::backend::{Backend, DISK};
use crate::console::{CONSOLE, has_booted, last_lines};
use crate::repository::Repository;
use crate::request::Request;
use crate::sandbox::{Id, Sandbox};
use crate::settings::Settings;
use crate::{seed, unit};

/// How long a banner may take once a connection stands.
const BANNER_WITHIN: Duration = Duration::from_secs(10);
/// Where git works when a commit is looked for; it belongs to no sandbox.
pub const GIT: &str = "git";
const RECORD: &str = "sandbox.json";
/// What systemd called the end of a sandbox's unit.
const RESULT: &str = "result";

/// What the daemon sees of the system, and does to it.
pub trait World: Send + Sync {
    /// Whether the commit that is asked for is there.
    ///
    /// # Errors
    /// With what is not there.
    fn check(&self, request: &Request) -> Result<(), String>;
    /// Makes the folder and the disk of a sandbox; returns its host key.
    ///
    /// # Errors
    /// With what could not be made.
    fn prepare(&self, sandbox: &Sandbox, request: &Request) -> Result<String, String>;
    /// Writes down what is said of a sandbox, so that it outlives the daemon.
    ///
    /// # Errors
    /// With what the system said.
    fn save(&self, sandbox: &Sandbox) -> Result<(), String>;
    /// Makes the unit of a sandbox.
    ///
    /// # Errors
    /// With what systemd said.
    fn launch(&self, sandbox: &Sandbox, lifetime: Duration) -> Result<(), String>;
    /// Asks for the end of a sandbox's unit, without waiting for it.
    ///
    /// # Errors
    /// With what systemd said.
    fn stop(&self, id: &Id) -> Result<(), String>;
    /// The sandboxes that have a unit, and whether it runs.
    ///
    /// # Errors
    /// With what systemd said.
    fn units(&self) -> Result<Vec<(Id, bool)>, String>;
    /// The sandboxes that have a folder, and what was written down of them.
    fn saved(&self) -> Vec<(Id, Option<Sandbox>)>;
    /// What systemd called the end of a sandbox's unit; `None` while it has not ended.
    fn result(&self, id: &Id) -> Option<String>;
    /// Whether a sandbox's SSH server answers.
    fn banner(&self, sandbox: &Sandbox) -> bool;
    /// The last lines of a sandbox's console.
    fn console(&self, id: &Id) -> Vec<String>;
    /// Removes what is left of a sandbox.
    fn forget(&self, id: &Id);
    /// Whether nobody listens at a port.
    fn port_is_free(&self, port: u16) -> bool;
    /// A number that nobody foresees.
    fn random(&self) -> u16;
    /// The time.
    fn now(&self) -> Timestamp;
}

/// This machine.
#[derive(Debug)]
pub struct System {
    settings: Settings,
    backend: Option<Backend>,
}

impl System {
    /// This machine, with what can run sandboxes on it.
    #[must_use]
    pub fn new(settings: Settings, backend: Option<Backend>) -> Self {
        Self { settings, backend }
    }

    fn folder(&self, id: &Id) -> PathBuf {
        self.settings.state.join(id.as_str())
    }

    fn make_folder(&self, id: &Id) -> io::Result<PathBuf> {
        let folder = self.folder(id);
        fs::create_dir(&folder)?;
        // The machine's process is nobody in particular; only root reaches this folder by its path.
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        File::create(folder.join(CONSOLE))?;
        fs::set_permissions(folder.join(CONSOLE), Permissions::from_mode(0o666))?;
        Ok(folder)
    }
}

impl World for System {
    fn check(&self, request: &Request) -> Result<(), String> {
        let own = self.settings.state.join(GIT);
        let repository = Repository::of(&self.settings.repositories, &request.project, &own);
        repository.and_then(|repository| repository.has(&request.sha)).map_err(|error| chain(&error))
    }

    fn prepare(&self, sandbox: &Sandbox, request: &Request) -> Result<String, String> {
        let folder = self.make_folder(&sandbox.id).map_err(|error| format!("could not make a folder: {error}"))?;
        self.save(sandbox)?;
        seed::make(&self.settings, &sandbox.id, request, &folder).map_err(|error| chain(&error))
    }

    fn save(&self, sandbox: &Sandbox) -> Result<(), String> {
        let path = self.folder(&sandbox.id).join(RECORD);
        write_whole(&path, sandbox).map_err(|error| format!("could not write `{}`: {error}", path.display()))
    }

    fn launch(&self, sandbox: &Sandbox, lifetime: Duration) -> Result<(), String> {
        let backend = self.backend.as_ref().ok_or("nothing here can run a sandbox")?;
        run(&unit::start(&self.settings, backend, sandbox, lifetime)).map(drop)
    }

    fn stop(&self, id: &Id) -> Result<(), String> {
        run(&unit::stop(id)).map(drop)
    }

    fn units(&self) -> Result<Vec<(Id, bool)>, String> {
        run(&unit::list()).map(|output| unit::listed(&output))
    }

    fn saved(&self) -> Vec<(Id, Option<Sandbox>)> {
        let entries = fs::read_dir(&self.settings.state).into_iter().flatten().filter_map(Result::ok);
        let ids = entries.filter_map(|entry| Id::parse(entry.file_name().to_str()?));
        ids.map(|id| {
            let record = fs::read(self.folder(&id).join(RECORD)).ok();
            let record = record.and_then(|bytes| serde_json::from_slice::<Sandbox>(&bytes).ok());
            let record = record.filter(|sandbox| sandbox.id == id);
            (id, record)
        })
        .collect()
    }

    fn result(&self, id: &Id) -> Option<String> {
        fs::read_to_string(self.folder(id).join(RESULT)).ok().map(|text| text.trim().to_owned())
    }

    fn banner(&self, sandbox: &Sandbox) -> bool {
        has_booted(&self.folder(&sandbox.id), &sandbox.id)
            && says_ssh(SocketAddr::new(self.settings.listen, sandbox.ssh_port)).unwrap_or(false)
    }

    fn console(&self, id: &Id) -> Vec<String> {
        last_lines(&self.folder(id), 20)
    }

    fn forget(&self, id: &Id) {
        let folder = self.folder(id);
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("could not remove `{}`: {error}", folder.display());
        }
    }

    fn port_is_free(&self, port: u16) -> bool {
        TcpListener::bind((self.settings.listen, port)).is_ok()
    }

    fn random(&self) -> u16 {
        let mut bytes = [0; 2];
        // It cannot fail on Linux; a number that is taken is not used.
        let _ = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        u16::from_ne_bytes(bytes)
    }

    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }
}

/// The end of a sandbox's unit, as systemd tells it to [`RESULT`]'s writer: the disk goes at once, and if no daemon is there to ask why it ended, so
/// does all the rest.
///
/// # Errors
/// If something cannot be removed.
pub fn ended(folder: &Path, socket: &Path, result: &str) -> io::Result<()> {
    match fs::remove_file(folder.join(DISK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        let new = folder.join("result.new");
        fs::write(&new, format!("{result}\n"))?;
        return fs::rename(new, folder.join(RESULT));
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn says_ssh(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, BANNER_WITHIN)?;
    stream.set_read_timeout(Some(BANNER_WITHIN))?;
    let mut start = [0; 4];
    stream.read_exact(&mut start)?;
    Ok(&start == b"SSH-")
}

/// An error with all its sources, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn write_whole(path: &Path, sandbox: &Sandbox) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(sandbox)?)?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn run(words: &[String]) -> Result<String, String> {
    let (program, arguments) = words.split_first().ok_or("nothing to run")?;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("could not run {program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::tests::{sandbox, settings};

    fn system(folder: &Path) -> System {
        let mut settings = settings();
        settings.state = folder.to_owned();
        System::new(settings, None)
    }

    #[test]
    fn what_is_written_down_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let system = system(folder.path());
        let sandbox = sandbox();
        system.make_folder(&sandbox.id).unwrap();
        system.save(&sandbox).unwrap();
        fs::create_dir(folder.path().join("sb-0001")).unwrap();
        fs::create_dir(folder.path().join("sb-0002")).unwrap();
        fs::write(folder.path().join("sb-0002/sandbox.json"), "{").unwrap();
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        let mut saved = system.saved();
        saved.sort_by(|left, right| left.0.cmp(&right.0));
        assert_eq!(saved, [(Id::new(1), None), (Id::new(2), None), (sandbox.id.clone(), Some(sandbox.clone()))]);
        system.forget(&sandbox.id);
        system.forget(&sandbox.id);
        assert_eq!(system.saved().len(), 2);
    }

    #[test]
    fn the_end_is_noted_for_the_daemon_or_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let system = system(folder.path());
        let id = Id::new(1);
        let socket = folder.path().join("api.sock");
        let own = system.make_folder(&id).unwrap();
        fs::write(own.join(DISK), "").unwrap();
        let daemon = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        ended(&own, &socket, "timeout").unwrap();
        assert!(!own.join(DISK).exists());
        assert_eq!(system.result(&id).as_deref(), Some("timeout"));
        drop(daemon);
        ended(&own, &socket, "success").unwrap();
        assert!(!own.exists());
        ended(&own, &socket, "success").unwrap();
    }

    #[test]
    fn a_banner_is_that_of_ssh() {
        let system = system(Path::new("/nowhere"));
        let check = |said: &'static [u8], expected| {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = server.local_addr().unwrap();
            assert!(!system.port_is_free(address.port()));
            let server = std::thread::spawn(move || server.accept().unwrap().0.write_all(said).unwrap());
            assert_eq!(says_ssh(address).unwrap_or(false), expected);
            server.join().unwrap();
            assert!(says_ssh(address).is_err());
        };
        check(b"SSH-2.0-dropbear\r\n", true);
        check(b"HTTP/1.1 400 Bad Request\r\n", false);
        check(b"", false);
    }
}
