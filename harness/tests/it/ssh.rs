//! The way into a guest, tried against a private SSH server: what works, and every way in which it does not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rave_hermetic::guest::{
    AskError, Captured, Connection, Exit, Guest, HostKey, Identity, MOST_OUTPUT, OpenError, Stop, Target,
};
use rave_hermetic::wait::{self, Probe};

use crate::sshd::Sshd;

const MIB: usize = 1 << 20;

fn within(duration: Duration) -> Instant {
    Instant::now() + duration
}

fn soon() -> Instant {
    within(Duration::from_secs(20))
}

/// Enough for a command to begin on a busy machine, and not too much to wait for its time-out.
fn shortly() -> Instant {
    within(Duration::from_millis(1000))
}

fn ask(sshd: &Sshd, guest: &Guest, command: &str) -> Captured {
    guest.run(&sshd.user, command, None, soon()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap().trim_end().to_owned()
}

fn open(target: &Target, deadline: Instant) -> Result<Connection, OpenError> {
    Connection::open(target, &Arc::new(Stop::new().unwrap()), deadline, deadline)
}

fn exists(path: &Path) {
    wait::until(soon(), || {
        let there = path.exists();
        Ok::<_, std::io::Error>(if there { Probe::Ready(()) } else { Probe::NotYet(format!("no {}", path.display())) })
    })
    .unwrap();
}

fn gone(pid: &str) {
    let process = PathBuf::from("/proc").join(pid);
    wait::until(within(Duration::from_secs(5)), || {
        let there = process.exists();
        Ok::<_, std::io::Error>(if there { Probe::NotYet(format!("process {pid} runs")) } else { Probe::Ready(()) })
    })
    .unwrap();
}

#[test]
fn a_command_leaves_both_streams_and_its_status() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let check = |command: &str, exit: Exit, stdout: &str, stderr: &str| {
        let captured = ask(&sshd, &guest, command);
        assert_eq!(captured.exit, exit, "{command}");
        assert_eq!(text(&captured.stdout), stdout, "{command}");
        assert_eq!(text(&captured.stderr), stderr, "{command}");
    };
    check("echo hello; echo there >&2", Exit::Status(0), "hello", "there");
    check("true", Exit::Status(0), "", "");
    check("exit 7", Exit::Status(7), "", "");
    check("exit 255", Exit::Status(255), "", "");
    check("kill -TERM $$", Exit::Signal("TERM".into()), "", "");
    check("kill -KILL $$", Exit::Signal("KILL".into()), "", "");
    check("printf 'a\\377b' | wc -c", Exit::Status(0), "3", "");
    check("cat", Exit::Status(0), "", ""); // its input is empty, not open for ever
    assert_eq!(sshd.logins(), 1);
}

#[test]
fn the_time_is_that_of_the_command() {
    let sshd = Sshd::start(&[]);
    let took = ask(&sshd, &sshd.guest(), "sleep 0.3").took;
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn eight_mebibytes_on_both_streams_at_once() {
    let sshd = Sshd::start(&[]);
    let script = "seq -f %063.0f 131072 & seq -f %063.0f 900000 1031071 >&2; wait";
    let captured = ask(&sshd, &sshd.guest(), script);
    let expected = |first: usize| (first..first + 131_072).map(|n| format!("{n:063}\n")).collect::<String>();
    assert_eq!(captured.stdout.len(), 8 * MIB);
    assert!(captured.stdout == expected(1).as_bytes(), "stdout differs");
    assert!(captured.stderr == expected(900_000).as_bytes(), "stderr differs");
}

#[test]
fn standard_input_arrives_whole() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let stdin: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let captured = guest.run(&sshd.user, "cat", Some(&stdin), soon()).unwrap();
    assert!(captured.stdout == stdin, "{} bytes came back", captured.stdout.len());
    // More than fits into any window, there and back at the same time.
    let stdin = stdin.repeat(20);
    let captured = guest.run(&sshd.user, "tee /dev/stderr", Some(&stdin), soon()).unwrap();
    assert!(captured.stdout == stdin && captured.stderr == stdin, "6 MB came back changed");
}

#[test]
fn a_command_need_not_read_its_input() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let stdin = vec![b'x'; 8 * MIB];
    let captured = guest.run(&sshd.user, "exit 3", Some(&stdin), soon()).unwrap();
    assert_eq!(captured.exit, Exit::Status(3));
    let captured = guest.run(&sshd.user, "exec <&-; sleep 0.2; echo on", Some(&stdin), soon()).unwrap();
    assert_eq!(text(&captured.stdout), "on");
}

#[test]
fn a_command_that_never_ends_is_killed_and_the_next_one_works() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let started = Instant::now();
    let script = "echo $$; sleep 1000 & echo $!; wait";
    let error = guest.run(&sshd.user, script, None, shortly()).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let AskError::TimedOut { so_far, killed } = &error else { panic!("{error}") };
    assert!(*killed && so_far.sent, "{error}");
    assert!(error.to_string().starts_with("the command did not end within "), "{error}");
    let pids = text(&so_far.stdout);
    assert_eq!(pids.lines().count(), 2, "{pids}");
    pids.lines().for_each(gone);
    assert_eq!(ask(&sshd, &guest, "exit 0").exit, Exit::Status(0));
    assert_eq!(sshd.logins(), 2);
}

#[test]
fn killing_spares_the_neighbours() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| ask(&sshd, &guest, "sleep 3; echo alive"));
        let error = guest.run(&sshd.user, "sleep 1000", None, shortly()).unwrap_err();
        assert!(matches!(error, AskError::TimedOut { killed: true, .. }), "{error}");
        assert_eq!(text(&neighbour.join().unwrap().stdout), "alive");
    });
}

#[test]
fn where_no_second_channel_is_allowed_a_time_out_is_still_one() {
    let sshd = Sshd::start(&["MaxSessions 1"]);
    let guest = sshd.guest();
    let error = guest.run(&sshd.user, "echo $$; exec sleep 1000", None, shortly()).unwrap_err();
    let AskError::TimedOut { so_far, killed } = &error else { panic!("{error}") };
    assert!(!killed);
    let pid = text(&so_far.stdout);
    assert_eq!(ask(&sshd, &guest, &format!("kill {pid}")).exit, Exit::Status(0));
}

#[test]
fn a_process_that_holds_the_output_keeps_the_command_unfinished() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let error = guest.run(&sshd.user, "sleep 5 & exit 0", None, shortly()).unwrap_err();
    assert!(matches!(error, AskError::TimedOut { killed: false, .. }), "{error}");
    assert!(error.to_string().ends_with("it, or what it has started, may still be running in the guest"), "{error}");
    assert_eq!(ask(&sshd, &guest, "sleep 1000 >/dev/null 2>&1 & kill $!").exit, Exit::Status(0));
}

#[test]
fn output_without_end_is_stopped_long_before_the_deadline() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let error = guest.run(&sshd.user, "echo $$ >&2; exec yes", None, soon()).unwrap_err();
    let AskError::TooMuchOutput { limit, so_far, killed } = &error else { panic!("{error}") };
    assert_eq!(*limit, MOST_OUTPUT);
    assert!(so_far.stdout.starts_with(b"y\ny\n") && so_far.stdout.len() <= MOST_OUTPUT + MIB);
    assert!(killed, "{error}");
    gone(&text(&so_far.stderr));
}

#[test]
fn a_channel_closed_by_the_server_is_no_success() {
    // libssh2 shows status 0 for it.
    let sshd = Sshd::start(&["ChannelTimeout session*=2s"]);
    let guest = sshd.guest();
    let error = guest.run(&sshd.user, "echo $$; exec sleep 1000", None, soon()).unwrap_err();
    let AskError::CutOff { so_far, killed: true } = &error else { panic!("{error}") };
    gone(&text(&so_far.stdout));
    assert_eq!(ask(&sshd, &guest, "true").exit, Exit::Status(0));
}

#[test]
fn a_silent_command_that_has_ended_is_a_success() {
    for sessions in ["MaxSessions 1", "MaxSessions 2"] {
        let sshd = Sshd::start(&[sessions]);
        let guest = sshd.guest();
        for _ in 0..2 {
            assert_eq!(ask(&sshd, &guest, "sleep 1").exit, Exit::Status(0));
        }
        assert_eq!(sshd.logins(), 1);
    }
}

#[test]
fn a_connection_that_dies_in_the_middle() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let script = "echo before; sleep 0.2; kill -KILL $PPID; exec sleep 2";
    let error = guest.run(&sshd.user, script, None, soon()).unwrap_err();
    let AskError::ConnectionLost { so_far, cause } = &error else { panic!("{error}") };
    assert!(so_far.sent);
    assert_eq!(text(&so_far.stdout), "before");
    assert!(cause.contains("closed the connection"), "{error}");
    assert!(error.to_string().starts_with("the connection was lost while the command ran: "), "{error}");
    assert_eq!(ask(&sshd, &guest, "exit 0").exit, Exit::Status(0));
}

#[test]
fn a_kept_connection_that_has_died_is_replaced() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let server = text(&ask(&sshd, &guest, "echo $PPID").stdout);
    assert!(std::process::Command::new("kill").args(["-KILL", &server]).status().unwrap().success());
    assert_eq!(ask(&sshd, &guest, "exit 0").exit, Exit::Status(0));
    assert_eq!(sshd.logins(), 2);
}

#[test]
fn a_guest_that_refuses_channels() {
    let sshd = Sshd::start(&["MaxSessions 0"]);
    let error = sshd.guest().run(&sshd.user, "true", None, soon()).unwrap_err();
    assert!(matches!(error, AskError::ChannelRefused { .. }), "{error}");
    assert!(error.to_string().starts_with("the guest refuses to run commands: "), "{error}");
    assert!(error.so_far().is_none());
}

#[test]
fn one_channel_on_each_connection_is_enough() {
    let sshd = Sshd::start(&["MaxSessions 1"]);
    let guest = sshd.guest();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..20).for_each(|n| assert_eq!(text(&ask(&sshd, &guest, &format!("echo {n}")).stdout), n.to_string()))
            });
        }
    });
    let logins = sshd.logins();
    assert!((1..=4).contains(&logins), "{logins} logins");
}

#[test]
fn another_host_key_is_refused_with_both_fingerprints() {
    let sshd = Sshd::start(&[]);
    let other = HostKey::generate();
    let target = Target { host_key: other.public().clone(), ..sshd.target() };
    let error = open(&target, soon()).unwrap_err();
    assert!(matches!(error, OpenError::HostKey { .. }), "{error}");
    let shown = error.to_string();
    assert!(shown.contains(&other.fingerprint()) && shown.contains(&sshd.host_key.fingerprint()), "{shown}");
    // The pool does not try again.
    let guest = Guest::new(sshd.addr, Arc::clone(&sshd.identity), other.public().clone()).unwrap();
    let error = guest.run(&sshd.user, "true", None, soon()).unwrap_err();
    assert!(matches!(error, AskError::NoConnection { tries: 1, source: OpenError::HostKey { .. } }), "{error}");
}

#[test]
fn another_key_or_user_is_rejected() {
    let sshd = Sshd::start(&[]);
    let check = |target: Target| {
        let error = open(&target, soon()).unwrap_err();
        let OpenError::Rejected { user, fingerprint, .. } = &error else { panic!("{error}") };
        assert_eq!((user, fingerprint), (&target.user, &target.identity.fingerprint()));
    };
    check(Target { identity: Arc::new(Identity::generate()), ..sshd.target() });
    check(Target { user: "nobody-of-that-name".into(), ..sshd.target() });
    let error = sshd.guest().run("nobody-of-that-name", "true", None, soon()).unwrap_err();
    assert!(matches!(error, AskError::NoConnection { tries: 1, source: OpenError::Rejected { .. } }), "{error}");
}

fn elsewhere(addr: SocketAddr) -> Target {
    let host_key = HostKey::generate().public().clone();
    Target { addr, user: "root".into(), identity: Arc::new(Identity::generate()), host_key }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Serves one connection with `serve` and returns what `open` made of it.
fn open_at(serve: impl FnOnce(TcpStream) + Send, patience: Duration) -> OpenError {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = elsewhere(listener.local_addr().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| serve(listener.accept().unwrap().0));
        open(&target, within(patience)).unwrap_err()
    })
}

#[test]
fn a_closed_port() {
    let addr = free_address();
    let error = open(&elsewhere(addr), soon()).unwrap_err();
    assert!(matches!(error, OpenError::Refused { .. }), "{error}");
    assert_eq!(error.to_string(), format!("{addr} refuses connections"));
}

#[test]
fn a_mute_peer() {
    let started = Instant::now();
    let wait_for_end = |mut stream: TcpStream| drop(stream.read_to_end(&mut Vec::new()));
    let error = open_at(wait_for_end, Duration::from_millis(300));
    assert!(matches!(error, OpenError::Mute { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_peer_that_is_no_ssh_server() {
    // Answers when spoken to and hangs up, as HTTP servers do.
    let http = |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 512]).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n").unwrap();
    };
    let error = open_at(http, Duration::from_secs(5));
    let OpenError::NotSsh { said, .. } = &error else { panic!("{error}") };
    assert!(["HTTP/1.1 400 Bad Request", "Server: nginx"].contains(&said.as_str()), "{error}");
    // Speaks first and stays.
    let smtp = |mut stream: TcpStream| {
        stream.write_all(b"220 mail ready\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let error = open_at(smtp, Duration::from_millis(300));
    let OpenError::NotSsh { said, .. } = &error else { panic!("{error}") };
    assert_eq!(said, "220 mail ready");
}

#[test]
fn a_peer_that_hangs_up() {
    let error = open_at(drop, Duration::from_secs(5));
    assert!(matches!(&error, OpenError::Dropped { said, .. } if said.is_empty()), "{error}");
    let too_many = |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 512]).unwrap();
        stream.write_all(b"Exceeded MaxStartups\r\n").unwrap();
    };
    let error = open_at(too_many, Duration::from_secs(5));
    assert!(matches!(&error, OpenError::Dropped { said, .. } if said == "Exceeded MaxStartups"), "{error}");
    assert!(error.to_string().ends_with("introducing itself; it said `Exceeded MaxStartups`"), "{error}");
    let half_way = |mut stream: TcpStream| {
        stream.write_all(b"SSH-2.0-Test_1\r\n").unwrap();
        let _ = stream.read(&mut [0; 512]).unwrap();
    };
    let error = open_at(half_way, Duration::from_secs(5));
    assert!(matches!(&error, OpenError::BrokenOff { during: "key exchange", .. }), "{error}");
    let stuck = |mut stream: TcpStream| {
        stream.write_all(b"SSH-2.0-Test_1\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let error = open_at(stuck, Duration::from_millis(300));
    assert!(matches!(&error, OpenError::TooSlow { during: "key exchange", .. }), "{error}");
}

#[test]
fn a_server_with_too_many_newcomers_is_asked_again() {
    let sshd = Sshd::start(&["MaxStartups 1:100:1"]);
    // The one newcomer there may be is us, as soon as the server greets us.
    let newcomer = wait::until(soon(), || {
        let mut newcomer = TcpStream::connect(sshd.addr)?;
        let mut greeting = [0; 4];
        newcomer.read_exact(&mut greeting)?;
        let greeted = greeting == *b"SSH-";
        Ok::<_, std::io::Error>(if greeted { Probe::Ready(newcomer) } else { Probe::NotYet("no greeting".into()) })
    })
    .unwrap();
    let error = open(&sshd.target(), soon()).unwrap_err();
    assert!(matches!(error, OpenError::Dropped { .. }), "{error}");
    let guest = sshd.guest();
    let error = guest.run(&sshd.user, "true", None, within(Duration::from_millis(200))).unwrap_err();
    assert!(
        matches!(&error, AskError::NoConnection { tries: 2.., source: OpenError::Dropped { .. } }),
        "{error}: {error:?}"
    );
    thread::scope(|scope| {
        let answers: Vec<_> = (0..4).map(|_| scope.spawn(|| ask(&sshd, &guest, "sleep 0.1"))).collect();
        drop(newcomer);
        answers.into_iter().for_each(|answer| assert_eq!(answer.join().unwrap().exit, Exit::Status(0)));
    });
}

#[test]
fn connections_are_opened_one_after_the_other() {
    let sshd = Sshd::start(&["MaxStartups 2:100:2"]);
    let guest = sshd.guest();
    guest.warm(&sshd.user, soon()).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| ask(&sshd, &guest, "sleep 1"));
        }
    });
    assert_eq!(sshd.logins(), 8);
    assert!(!sshd.log().contains("drop connection"), "{}", sshd.log());
}

#[test]
fn eight_commands_run_side_by_side() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let started = Instant::now();
    let all = || {
        thread::scope(|scope| {
            for n in 0..8 {
                let (sshd, guest) = (&sshd, &guest);
                scope.spawn(move || {
                    let captured = ask(sshd, guest, &format!("sleep 0.5; echo {n}"));
                    assert_eq!(text(&captured.stdout), n.to_string());
                });
            }
        });
    };
    all();
    all();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert_eq!(sshd.logins(), 8);
}

#[test]
fn with_all_connections_busy_the_next_caller_waits_its_turn() {
    let sshd = Sshd::start(&[]);
    let guest = Guest::with_at_most(1, sshd.addr, Arc::clone(&sshd.identity), sshd.host_key.public().clone()).unwrap();
    thread::scope(|scope| {
        let begun = sshd.folder().join("begun");
        let script = format!(": >'{}'; sleep 1", begun.display());
        let (asked, served) = (&sshd, &guest);
        let first = scope.spawn(move || ask(asked, served, &script));
        exists(&begun);
        let error = guest.run(&sshd.user, "true", None, within(Duration::from_millis(100))).unwrap_err();
        assert_eq!(error.to_string(), "all 1 connections to the guest were busy until the deadline");
        assert_eq!(ask(&sshd, &guest, "exit 5").exit, Exit::Status(5));
        first.join().unwrap();
    });
    assert_eq!(sshd.logins(), 1);
}

#[test]
fn five_hundred_commands_use_one_connection() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    for n in 0..500 {
        let captured = ask(&sshd, &guest, &format!("echo {n}; echo e{n} >&2; exit {}", n % 256));
        assert_eq!(captured.exit, Exit::Status(n % 256));
        assert_eq!((text(&captured.stdout), text(&captured.stderr)), (n.to_string(), format!("e{n}")));
    }
    assert_eq!(sshd.logins(), 1);
}

#[test]
fn users_have_connections_of_their_own() {
    let sshd = Sshd::start(&[]);
    if sshd.user != "root" {
        return; // Only root's server can let other users in.
    }
    let guest = sshd.guest();
    assert_eq!(text(&ask(&sshd, &guest, "id -un").stdout), "root");
    let other = guest.run("nobody", "id -un", None, soon()).unwrap();
    // Its shell is `nologin`, which is an answer too.
    assert_eq!(other.exit, Exit::Status(1), "{}", text(&other.stdout));
    assert_eq!(text(&ask(&sshd, &guest, "id -un").stdout), "root");
    assert_eq!(sshd.logins(), 2);
}

#[test]
fn a_warm_guest_answers_without_another_login() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    guest.warm(&sshd.user, soon()).unwrap();
    guest.warm(&sshd.user, soon()).unwrap();
    assert_eq!(ask(&sshd, &guest, "true").exit, Exit::Status(0));
    assert_eq!(sshd.logins(), 1);
}

#[test]
fn warming_waits_for_the_port() {
    let guest = {
        let nobody = elsewhere(free_address());
        Guest::new(nobody.addr, nobody.identity, nobody.host_key).unwrap()
    };
    let started = Instant::now();
    let error = guest.warm("root", within(Duration::from_millis(300))).unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(matches!(error, AskError::NoConnection { tries: 2.., source: OpenError::Refused { .. } }), "{error}");
    // A question does not wait: the port of a guest that is up is open.
    let error = guest.run("root", "true", None, soon()).unwrap_err();
    assert!(matches!(error, AskError::NoConnection { tries: 1, source: OpenError::Refused { .. } }), "{error}");
}

#[test]
fn giving_up_wakes_everybody_at_once() {
    let sshd = Sshd::start(&[]);
    let check = |give_up: fn(&Guest), expected: &str| {
        let guest =
            Guest::with_at_most(1, sshd.addr, Arc::clone(&sshd.identity), sshd.host_key.public().clone()).unwrap();
        let begun = sshd.folder().join(expected);
        let script = format!("echo on; : >'{}'; exec sleep 3", begun.display());
        thread::scope(|scope| {
            let running = scope.spawn(|| guest.run(&sshd.user, &script, None, soon()).unwrap_err());
            exists(&begun);
            let waiting = scope.spawn(|| guest.run(&sshd.user, "true", None, soon()).unwrap_err());
            thread::sleep(Duration::from_millis(200)); // the output is on its way, the other one takes his place
            let given_up = Instant::now();
            give_up(&guest);
            let (running, waiting) = (running.join().unwrap(), waiting.join().unwrap());
            assert!(given_up.elapsed() < Duration::from_secs(1), "{:?}", given_up.elapsed());
            assert_eq!(text(&running.so_far().unwrap().stdout), "on");
            assert!(running.to_string().contains(expected), "{running}");
            assert!(waiting.to_string().contains(expected), "{waiting}");
        });
        let late = guest.run(&sshd.user, "true", None, soon()).unwrap_err();
        assert!(late.to_string().contains(expected), "{late}");
    };
    check(|guest| guest.lost("the kernel panicked"), "the kernel panicked");
    check(Guest::cancel, "cancelled");
}

#[test]
fn a_command_with_a_nul_byte_is_not_sent() {
    let sshd = Sshd::start(&[]);
    let guest = sshd.guest();
    let error = guest.run(&sshd.user, "echo a\0b", None, soon()).unwrap_err();
    assert!(matches!(error, AskError::NulByte), "{error}");
    assert_eq!(ask(&sshd, &guest, "true").exit, Exit::Status(0));
    assert_eq!(sshd.logins(), 1);
}
