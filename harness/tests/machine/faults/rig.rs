//! A run with a fault around it: how it is started, what is waited for, and whom the fault hits.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rave_hermetic::wait::{Probe, until};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::control::{Control, Proxy};
use crate::run::project;
use crate::support::Project;

/// How long an event may take to come, and a run to end, on a host that is busy with other things.
const ENOUGH: Duration = Duration::from_secs(600);

/// How the run is started.
#[derive(Clone, Copy)]
pub enum Start {
    /// As always.
    Plainly,
    /// By a shell that says this first.
    After(&'static str),
    /// With a small file system, of so many MiB, at this path of the project. What is left there in the end is copied to `left`.
    OnSmallDisk { at: &'static str, mib: u32 },
    /// With nobody at the other end of its standard output.
    Unread,
}

/// Everything around a run that is not as always.
#[derive(Clone, Copy)]
pub struct Given {
    /// What the microguest does, and more of its kernel's command line.
    pub word: &'static str,
    /// Scenario files: name and text.
    pub scenarios: &'static [(&'static str, &'static str)],
    /// More settings.
    pub settings: &'static [(&'static str, &'static str)],
    /// How it is started.
    pub start: Start,
    /// What a shell does in QEMU's place before it becomes QEMU.
    pub qemu: Option<&'static str>,
    /// What a shell does in the place of `qemu-img`.
    pub qemu_img: Option<&'static str>,
    /// What becomes of the control connection.
    pub control: Option<Control>,
    /// What is done to the project before the start.
    pub before: fn(&Project),
}

/// As always: a microguest that gets ready, and nothing to ask it.
pub const AS_ALWAYS: Given = Given {
    word: "ok",
    scenarios: &[],
    settings: &[],
    start: Start::Plainly,
    qemu: None,
    qemu_img: None,
    control: None,
    before: |_| {},
};

/// A run that was started.
pub struct Rig {
    /// Its files.
    pub project: Project,
    child: Child,
    proxy: Option<Proxy>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Killed(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

impl Rig {
    /// Starts `hermetic run`.
    pub fn start(given: &Given) -> Self {
        let mut project = project(given.word, given.scenarios);
        for (name, value) in given.settings {
            project = project.set(name, value);
        }
        let proxy = given.control.map(|control| Proxy::start(&project.path("control"), control));
        let to_proxy = proxy.is_some().then(|| redirect(&project.path("control")));
        let in_qemu = [given.qemu.map(str::to_owned), to_proxy].into_iter().flatten().collect::<Vec<_>>();
        instead(&project, "qemu-system-x86_64", &in_qemu.join("\n"));
        instead(&project, "qemu-img", given.qemu_img.unwrap_or_default());
        (given.before)(&project);
        let child = spawn(&project, &["run"], given.start);
        Self { project, child, proxy }
    }

    /// The run's process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends the run a signal; one that has ended takes none.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Everything it has said.
    pub fn said(&self) -> String {
        said(&self.project)
    }

    /// Waits until it has said this.
    pub fn says(&self, text: &str) {
        wait_until(&format!("the run says `{text}`"), || self.said(), |said| said.contains(text));
    }

    /// Waits until a guest's console has said this.
    pub fn console(&self, text: &str) {
        wait_until(&format!("a console says `{text}`"), || self.consoles(), |said| said.contains(text));
    }

    /// All that guests have said on their consoles, as the run sees them.
    fn consoles(&self) -> String {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid().as_raw_nonzero()));
        consoles(&root.join(self.project.path("artifacts").strip_prefix("/").unwrap()))
    }

    /// The QEMU that runs; the newest, where there are several.
    pub fn qemu(&self) -> Pid {
        let folder = self.project.path("tmp");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let is_qemu = line.split('\0').next().is_some_and(|program| program.ends_with("qemu-system-x86_64"));
            if is_qemu && line.contains(folder.to_str().unwrap()) {
                found.push(pid);
            }
        }
        Pid::from_raw(*found.iter().max().expect("a QEMU runs")).unwrap()
    }

    /// Sends QEMU a signal.
    pub fn qemu_signal(&self, signal: Signal) {
        kill_process(self.qemu(), signal).unwrap();
    }

    /// Waits until so much time has passed: what stands still meanwhile is the fault.
    pub fn stands_still(&self, time: Duration) {
        let begun = Instant::now();
        wait_until("time passes", || begun.elapsed(), |passed| *passed >= time);
    }

    /// The machine's files.
    pub fn machine_file(&self, name: &str) -> PathBuf {
        let folders = fs::read_dir(self.project.path("tmp")).unwrap().flatten().map(|entry| entry.path().join(name));
        folders.filter(|path| path.exists()).max().unwrap_or_else(|| panic!("no machine has a file `{name}`"))
    }

    /// Leaves the small disk so much more space than is used of it, in KiB.
    pub fn shrink_disk(&self, at: &str, left_kib: u64) {
        let path = self.project.path(at);
        let script = format!(
            "used=$(df -k --output=used '{0}' | tail -n 1) && mount -o remount,size=$((used + {left_kib}))k '{0}'",
            path.display()
        );
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.pid().as_raw_nonzero().to_string(), "--user", "--mount", "--", "sh", "-c"]);
        assert!(nsenter.arg(&script).status().expect("nsenter (package util-linux)").success());
    }

    /// The control connection's other side.
    pub fn control(&self) -> &Proxy {
        self.proxy.as_ref().expect("the fault has a proxy")
    }

    /// Waits for its end.
    pub fn end(&mut self) -> End {
        let mut status = None;
        let ended = until(Instant::now() + ENOUGH, || {
            status = self.child.try_wait().map_err(|error| error.to_string())?;
            Ok::<_, String>(if status.is_some() { Probe::Ready(()) } else { Probe::NotYet("it runs".to_owned()) })
        });
        if ended.is_err() {
            panic!("the run did not end; it said:\n{}\nand its guests:\n{}", self.said(), self.consoles());
        }
        let status = status.unwrap();
        status.signal().map_or_else(|| End::Code(status.code().unwrap_or_default()), End::Killed)
    }
}

/// A test that fails must not leave a run behind.
impl Drop for Rig {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// What a run has said on both streams, which go to files.
pub fn said(project: &Project) -> String {
    ["stdout", "stderr"].map(|name| fs::read_to_string(project.path(name)).unwrap_or_default()).concat()
}

/// Starts the program with its output in files.
pub fn spawn(project: &Project, arguments: &[&str], start: Start) -> Child {
    let plain = project.command(arguments);
    let mut command = match start {
        Start::Plainly | Start::Unread => plain,
        Start::After(first) => under(&plain, &["sh", "-c", &format!("{first}; exec \"$0\" \"$@\"")]),
        Start::OnSmallDisk { at, mib } => {
            let (disk, left) = (project.path(at), project.path("left"));
            fs::create_dir_all(&disk).unwrap();
            // Not `exec`: somebody must keep the disk until it was looked at. What a guardian removes may take it a moment.
            let script = format!(
                "mount -t tmpfs -o size={mib}m small '{0}' || exit 99\n\"$0\" \"$@\"\ncode=$?\n\
                 tries=0\nwhile [ -n \"$(find '{0}' -path '*/rave-vm-*' -print -quit)\" ] && [ $((tries += 1)) -lt 600 ]; do sleep 0.1; done\n\
                 cp -a '{0}' '{1}'\nexit $code",
                disk.display(),
                left.display()
            );
            under(&plain, &["unshare", "--map-root-user", "--mount", "sh", "-c", &script])
        }
    };
    if project.path("bin").exists() {
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", project.path("bin").display()));
    }
    let output = |name: &str| File::create(project.path(name)).unwrap();
    command.stdin(Stdio::null()).stderr(output("stderr"));
    match start {
        Start::Unread => command.stdout(Stdio::piped()),
        _ => command.stdout(output("stdout")),
    };
    // So that nobody is left of it if the test fails.
    let mut child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    drop(child.stdout.take());
    child
}

/// The same command, started by another one.
fn under(command: &Command, by: &[&str]) -> Command {
    let mut outer = Command::new(by[0]);
    outer.args(&by[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer.current_dir(command.get_current_dir().expect("the project's folder"));
    outer
}

/// Puts a shell in a program's place, which does something and then becomes that program. A question for its version is only passed on.
fn instead(project: &Project, name: &str, script: &str) {
    if script.is_empty() {
        return;
    }
    let real = which::which(name).unwrap();
    let bin = project.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let text = format!(
        "#!/bin/sh\n[ \"$1\" != --version ] || exec {0} \"$@\"\n{script}\nexec {0} \"$@\"\n",
        real.to_str().unwrap()
    );
    fs::write(bin.join(name), text).unwrap();
    fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Shell lines that let QEMU connect to the proxy, which finds in a file of QEMU's process id where it was to connect.
fn redirect(proxy: &Path) -> String {
    format!(
        "for argument; do\n  shift\n  case $argument in\n  socket,id=qmp,path=*)\n    printf %s \"${{argument#*path=}}\" >'{0}'.$$\n    \
         argument=socket,id=qmp,path={0}\n    ;;\n  esac\n  set -- \"$@\" \"$argument\"\ndone",
        proxy.display()
    )
}

/// All that guests have said on their consoles.
fn consoles(folder: &Path) -> String {
    let mut said = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            said += &consoles(&path);
        } else if path.file_name().is_some_and(|name| name == "console.log") {
            said += &String::from_utf8_lossy(&fs::read(&path).unwrap_or_default());
        }
    }
    said
}

/// Waits until something holds of what is looked at.
fn wait_until<T: std::fmt::Debug>(what: &str, look: impl Fn() -> T, holds: impl Fn(&T) -> bool) {
    let waited = until(Instant::now() + ENOUGH, || {
        let seen = look();
        Ok::<_, String>(if holds(&seen) { Probe::Ready(()) } else { Probe::NotYet(format!("{seen:?}")) })
    });
    waited.unwrap_or_else(|error| panic!("waited in vain until {what}: {error}"));
}
