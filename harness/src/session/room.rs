//! How many machines may run at the same time, by memory and cores.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Memory that is left to everybody else, MiB.
const RESERVE_MIB: u64 = 1024;
/// What a machine is thought to need at least, MiB.
const LEAST_NEED_MIB: u64 = 128;

/// Room for machines. Whoever wants to run one asks for a place, and holds it as long as the machine runs.
pub struct Room {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

struct State {
    /// Memory of its own that each running machine has now, MiB, as far as it has been asked.
    running: BTreeMap<u64, Look>,
    next: u64,
    /// What one is thought to need, MiB: what those before it needed.
    need_mib: u64,
    /// Whether one has ended, so that the need is known from more than a guess.
    known: bool,
}

/// Tells how much memory a machine has now.
type Look = Box<dyn Fn() -> u64 + Send>;

impl Room {
    /// With room for this many machines as far as cores are concerned, each of which needs so much memory until it is known better.
    pub fn new(most: usize, need_mib: u64) -> Self {
        let state = State { running: BTreeMap::new(), next: 0, need_mib, known: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), most: most.max(1) }
    }

    /// Waits until there is room for one more. One always has room.
    pub fn enter(self: &Arc<Self>) -> Seat {
        let mut state = self.lock();
        while !state.has_room(self.most, available_mib()) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let number = state.next;
        state.next += 1;
        state.running.insert(number, Box::new(|| 0));
        Seat { room: Arc::clone(self), number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether one more fits beside those that run, when they have all grown to what they are thought to need.
    fn has_room(&self, most: usize, available_mib: u64) -> bool {
        let still_to_grow: u64 = self.running.values().map(|look| self.need_mib.saturating_sub(look())).sum();
        let enough = available_mib >= RESERVE_MIB + still_to_grow + self.need_mib;
        self.running.is_empty() || (self.running.len() < most && enough)
    }

    fn learn(&mut self, used_mib: u64) {
        let need = (used_mib + used_mib / 4).max(LEAST_NEED_MIB);
        self.need_mib = if self.known { self.need_mib.max(need) } else { need };
        self.known = true;
    }
}

/// A place for one machine.
pub struct Seat {
    room: Arc<Room>,
    number: u64,
}

impl Seat {
    /// From now on the machine's memory can be asked.
    pub fn watch(&self, look: impl Fn() -> u64 + Send + 'static) {
        self.room.lock().running.insert(self.number, Box::new(look));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        if let Some(look) = state.running.remove(&self.number) {
            let used_mib = look();
            if used_mib > 0 {
                state.learn(used_mib);
            }
        }
        drop(state);
        self.room.changed.notify_all();
    }
}

/// Memory of this machine that can be had, MiB (`MemAvailable`, proc_meminfo(5)).
fn available_mib() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or_default() / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(running: &[u64]) -> State {
        let running = running.iter().enumerate().map(|(number, mib)| {
            let mib = *mib;
            (number as u64, Box::new(move || mib) as Look)
        });
        State { running: running.collect(), next: 9, need_mib: 500, known: false }
    }

    #[test]
    fn memory_and_cores_decide() {
        assert!(state(&[]).has_room(4, 0));
        assert!(state(&[500]).has_room(4, RESERVE_MIB + 500));
        assert!(!state(&[0]).has_room(4, RESERVE_MIB + 500));
        assert!(state(&[0]).has_room(4, RESERVE_MIB + 1000));
        assert!(!state(&[0]).has_room(1, 1 << 20));
    }

    #[test]
    fn the_need_is_that_of_those_before() {
        let mut state = state(&[]);
        state.learn(200);
        assert_eq!(state.need_mib, 250);
        state.learn(100);
        assert_eq!(state.need_mib, 250);
        state.learn(400);
        assert_eq!(state.need_mib, 500);
    }

    #[test]
    fn a_place_is_given_back() {
        let room = Arc::new(Room::new(1, 1));
        let seat = room.enter();
        seat.watch(|| 100);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(room.enter()));
            drop(seat);
            second.join().unwrap();
        });
        assert_eq!(room.lock().need_mib, LEAST_NEED_MIB);
        assert!(available_mib() > 0);
    }
}
