//! Machines that are saved and go on in copies.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rave_hermetic::guest::{Guest, HostKey, Identity};
use rave_hermetic::vm::boot::{JOURNAL_LOG, Vm};
use rave_hermetic::vm::credentials::{Login, credentials};
use rave_hermetic::vm::fork::{self, ForkPlan};
use rave_hermetic::vm::wake::CLOCK_WITHIN;
use rave_hermetic::vm::{Life, Loss, Method, Plan, Qemu, SaveError, Saved, VmError, WakeError};

use crate::vm::{ENOUGH, Place, enough, handle, never};

/// A machine that is up, and the keys to enter it and its copies.
struct Up {
    place: Place,
    vm: Vm,
    identity: std::sync::Arc<Identity>,
    host_key: HostKey,
}

impl Up {
    fn boot(word: &str) -> Self {
        let place = Place::new();
        let (identity, host_key) = (Identity::generate(), HostKey::generate());
        let login = Login {
            authorized_key: &identity.public_line(),
            host_key_pem: &host_key.private_pem(),
            host_key_public: &host_key.public_line(),
        };
        let plan = Plan { credentials: credentials(login), ..place.plan(word) };
        let vm = Vm::start(&plan, &handle()).unwrap();
        vm.wait_ready(enough(), &never()).unwrap();
        Self { place, vm, identity: identity.into(), host_key }
    }

    /// The saved machine; the one it was made of has ended.
    fn save(self, method: Method) -> (Copies, Saved) {
        let begun = Instant::now();
        let saved = fork::save(&self.vm, &Qemu::find().unwrap(), method).unwrap();
        eprintln!("saved by {method} in {:?}", begun.elapsed());
        self.vm.shutdown(Duration::ZERO);
        (Copies { place: self.place, identity: self.identity, host_key: self.host_key }, saved)
    }
}

struct Copies {
    place: Place,
    identity: std::sync::Arc<Identity>,
    host_key: HostKey,
}

impl Copies {
    fn plan(&self, name: &str) -> ForkPlan {
        let base = self.place.path().join("base");
        ForkPlan { evidence: self.place.path().join(name), base, debug: false }
    }

    fn fork(&self, saved: &Saved, name: &str) -> Vm {
        fork::fork(saved, &self.plan(name), &handle()).unwrap()
    }

    fn guest(&self, vm: &Vm) -> Guest {
        Guest::new(vm.ssh(), self.identity.clone(), self.host_key.public().clone()).unwrap()
    }
}

fn ask(guest: &Guest, command: &str) -> String {
    let captured = guest.run("root", command, None, enough()).unwrap();
    String::from_utf8(captured.stdout).unwrap().trim().to_owned()
}

fn forks_are_machines_of_their_own(method: Method) {
    let (copies, saved) = Up::boot("ok").save(method);
    let begun = Instant::now();
    let forks = [copies.fork(&saved, "one"), copies.fork(&saved, "two")];
    let running = begun.elapsed();
    let awake = forks.each_ref().map(|vm| vm.wake(ENOUGH).unwrap());
    eprintln!("two forks running after {running:?}: {awake:?}");
    for awake in &awake {
        assert!(awake.clock_off <= CLOCK_WITHIN, "{awake:?}");
    }
    assert_ne!(awake[0].random, awake[1].random);
    assert_ne!(forks[0].address(), forks[1].address());
    // Nobody sees what the other does, in memory or on the disk.
    let guests = forks.each_ref().map(|vm| copies.guest(vm));
    assert_eq!(ask(&guests[0], "echo one >/tmp/mark && echo one >/data/mark && sync && cat /data/mark"), "one");
    assert_eq!(ask(&guests[1], "cat /tmp/mark /data/mark 2>&1 | wc -l; ls /tmp/mark /data/mark 2>/dev/null"), "2");
    // The kernel knows that it is a copy.
    assert!(ask(&guests[1], "dmesg").contains("crng reseeded due to virtual machine fork"));
    // The log of a fork begins with the machine's first line, and goes on with its own.
    let [_, (name, saved_bytes)] = saved.log_bytes();
    let journal = fs::read_to_string(forks[1].evidence().join(name)).unwrap();
    assert!(name == JOURNAL_LOG && saved_bytes > 0 && journal.contains("started"), "{journal}");
    // A third one begins where the first two began.
    let third = copies.fork(&saved, "three");
    third.wake(ENOUGH).unwrap();
    assert_eq!(ask(&copies.guest(&third), "ls /tmp/mark /data/mark 2>/dev/null | wc -l"), "0");
    drop((forks, third, saved));
    assert_eq!(copies.place.left(), Vec::<PathBuf>::new());
}

#[test]
fn forks_that_share_the_memory_file_are_machines_of_their_own() {
    forks_are_machines_of_their_own(Method::SharedFile);
}

#[test]
fn forks_that_read_the_memory_are_machines_of_their_own() {
    forks_are_machines_of_their_own(Method::MappedRam);
}

#[test]
fn eight_forks_at_once() {
    let (copies, saved) = Up::boot("ok").save(Method::SharedFile);
    let forks: Vec<Vm> = std::thread::scope(|scope| {
        let forks: Vec<_> = (0..8)
            .map(|number| {
                let (copies, saved) = (&copies, &saved);
                scope.spawn(move || copies.fork(saved, &format!("fork-{number}")))
            })
            .collect();
        forks.into_iter().map(|fork| fork.join().unwrap()).collect()
    });
    let awake: Vec<_> = forks.iter().map(|vm| vm.wake(ENOUGH).unwrap()).collect();
    let random: std::collections::BTreeSet<_> = awake.iter().map(|awake| &awake.random).collect();
    assert_eq!(random.len(), 8, "{awake:?}");
    let own: Vec<_> = forks.iter().map(|vm| vm.private_mib().unwrap()).collect();
    eprintln!("eight forks, MiB each of their own: {own:?}");
    let guests: Vec<_> = forks.iter().map(|vm| copies.guest(vm)).collect();
    std::thread::scope(|scope| {
        for (number, guest) in guests.iter().enumerate() {
            scope.spawn(move || {
                let word = format!("echo {number} >/data/mark && cat /data/mark");
                assert_eq!(ask(guest, &word), number.to_string());
            });
        }
    });
}

#[test]
fn a_fork_may_be_destroyed_and_no_other_notices() {
    let (copies, saved) = Up::boot("ok").save(Method::SharedFile);
    let [first, second] = ["one", "two"].map(|name| copies.fork(&saved, name));
    second.wake(ENOUGH).unwrap();
    let mut life = first.life();
    // The guest fills its disk and panics.
    ask(
        &copies.guest(&first),
        "cat /dev/zero >/data/full; sync; (sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &",
    );
    handle().block_on(async { life.wait_for(|life| *life != Life::Running).await.unwrap().clone() });
    assert!(matches!(first.alive(), Err(Loss::Panicked(_))), "{:?}", first.alive());
    assert_eq!(ask(&copies.guest(&second), "ls /data | grep -c full"), "0");
    let third = copies.fork(&saved, "three");
    third.wake(ENOUGH).unwrap();
    assert_eq!(ask(&copies.guest(&third), "ls /data | grep -c full; echo a >/data/a && cat /data/a"), "0\na");
}

#[test]
fn a_machine_that_could_not_be_saved_goes_on() {
    let up = Up::boot("ok");
    // Nobody can write a state there.
    let ram = up.vm.machine().ram_file.clone();
    fs::create_dir(ram.with_file_name("state")).unwrap();
    let error = fork::save(&up.vm, &Qemu::find().unwrap(), Method::SharedFile).err().unwrap();
    assert!(matches!(error, SaveError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("x-ignore-shared"), "{error}");
    fs::remove_dir(ram.with_file_name("state")).unwrap();
    assert_eq!(up.vm.ping(Duration::from_secs(20)), Ok(()));
    let copies = Copies { place: up.place, identity: up.identity, host_key: up.host_key };
    assert_eq!(ask(&copies.guest(&up.vm), "echo here"), "here");
    // And the other way still works.
    let saved = fork::save(&up.vm, &Qemu::find().unwrap(), Method::MappedRam).unwrap();
    let vm = copies.fork(&saved, "fork");
    vm.wake(ENOUGH).unwrap();
    // A machine that was saved goes on as well, if asked to, once nobody uses its disk any more.
    drop(vm);
    up.vm.go_on().unwrap();
    assert_eq!(ask(&copies.guest(&up.vm), "echo still here"), "still here");
}

#[test]
fn a_state_that_is_not_one_is_refused_and_nothing_is_left() {
    let up = Up::boot("ok");
    let state = up.vm.machine().ram_file.with_file_name("state");
    let (copies, saved) = up.save(Method::SharedFile);
    let good = fs::read(&state).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&state, bytes).unwrap();
        match fork::fork(&saved, &copies.plan("bad"), &handle()) {
            Err(VmError::Incoming { reason }) => reason,
            other => panic!("{:?}", other.map(|vm| vm.pid())),
        }
    };
    let left = copies.place.left();
    assert!(!refused(b"nonsense").is_empty());
    assert!(!refused(&good[..good.len() / 2]).is_empty());
    // Of another machine version, as an older QEMU would write it.
    let at = good.windows(4).position(|word| word == b"pc-q").unwrap();
    let mut other = good.clone();
    other[at..at + 4].copy_from_slice(b"xx-q");
    let reason = refused(&other);
    assert!(reason.contains("xx-q"), "{reason}");
    assert_eq!(copies.place.left(), left);
    fs::write(&state, good).unwrap();
    copies.fork(&saved, "good").wake(ENOUGH).unwrap();
}

#[test]
fn a_copy_that_is_no_good_machine_is_told() {
    let silent = Up::boot("no-wake").vm.wake(Duration::from_secs(2)).unwrap_err();
    assert!(matches!(silent, WakeError::Silent { .. }), "{silent}");
    let (copies, saved) = Up::boot("wake-wrong").save(Method::SharedFile);
    std::thread::sleep(CLOCK_WITHIN + Duration::from_millis(500));
    let wrong = copies.fork(&saved, "fork").wake(ENOUGH).unwrap_err();
    assert!(matches!(wrong, WakeError::Clock { .. }), "{wrong}");
}

#[test]
fn no_space_is_said_before_anything_is_started() {
    let (copies, saved) = Up::boot("ok").save(Method::SharedFile);
    let mut plan = copies.plan("fork");
    plan.base = "/proc".into();
    let error = fork::fork(&saved, &plan, &handle()).err().unwrap();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.starts_with("could not prepare the machine: "), "{text}");
}

/// Not one of them may fail: `cargo test --test machine two_hundred -- --ignored --nocapture`, which also tells the medians.
#[test]
#[ignore = "takes minutes"]
fn two_hundred_forks() {
    let (copies, saved) = Up::boot("ok").save(Method::SharedFile);
    let (mut running, mut awake, mut answered, mut own) = (vec![], vec![], vec![], vec![]);
    let mut random = std::collections::BTreeSet::new();
    for number in 0..200 {
        let begun = Instant::now();
        let vm = copies.fork(&saved, "fork");
        running.push(begun.elapsed());
        let woken = vm.wake(ENOUGH).unwrap();
        awake.push(begun.elapsed());
        assert!(woken.clock_off <= CLOCK_WITHIN, "{number}: {woken:?}");
        assert!(random.insert(woken.random), "{number}");
        // Every tenth is entered as well: a login takes longer than all the rest.
        if number % 10 == 0 {
            assert_eq!(ask(&copies.guest(&vm), "echo here"), "here");
            answered.push(begun.elapsed());
        }
        own.push(vm.private_mib().unwrap());
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    own.sort_unstable();
    eprintln!(
        "medians of {}: running after {:?}, awake after {:?}, first answer over SSH after {:?}, {} MiB of its own",
        running.len(),
        median(&mut running),
        median(&mut awake),
        median(&mut answered),
        own[own.len() / 2]
    );
}
