//! Who may run when: phases in order, scenarios that change the machine alone.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::scenario::model::Phase;

/// Hands out permits. Every chosen scenario asks for exactly one.
///
/// Scenarios are started in the order of their phases, so one that waits for an earlier phase waits for others that run or
/// have run: there is always one that can go on.
pub struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Scenarios that have not finished, by phase.
    open: BTreeMap<Phase, usize>,
    running: usize,
    alone: bool,
    /// Waiting to run alone; those that need not be alone let it pass first.
    waiting_alone: usize,
}

impl Schedule {
    /// For scenarios of these phases.
    pub fn new(phases: impl Iterator<Item = Phase>) -> Self {
        let mut open = BTreeMap::new();
        for phase in phases {
            *open.entry(phase).or_default() += 1;
        }
        let state = State { open, running: 0, alone: false, waiting_alone: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until a scenario of this phase may run.
    pub fn enter(&self, phase: Phase, alone: bool) -> Permit<'_> {
        let mut state = self.lock();
        while state.open.range(..phase).any(|(_, open)| *open > 0) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting_alone += usize::from(alone);
        while state.alone || (alone && state.running > 0) || (!alone && state.waiting_alone > 0) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting_alone -= usize::from(alone);
        state.alone = alone;
        state.running += 1;
        Permit { schedule: self, phase }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A scenario may run until this is dropped.
pub struct Permit<'a> {
    schedule: &'a Schedule,
    phase: Phase,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.schedule.lock();
        state.running -= 1;
        state.alone = false;
        if let Some(open) = state.open.get_mut(&self.phase) {
            *open -= 1;
        }
        self.schedule.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn phases_run_in_order() {
        let schedule = Schedule::new([Phase::Security, Phase::Boot, Phase::Boot].into_iter());
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for phase in [Phase::Security, Phase::Boot, Phase::Boot] {
                let (schedule, order) = (&schedule, &order);
                scope.spawn(move || {
                    let _permit = schedule.enter(phase, false);
                    order.lock().unwrap().push(phase);
                });
            }
        });
        assert_eq!(order.into_inner().unwrap(), [Phase::Boot, Phase::Boot, Phase::Security]);
    }

    #[test]
    fn nothing_runs_beside_one_that_must_be_alone() {
        let count = 40;
        let schedule = Schedule::new(std::iter::repeat_n(Phase::Health, count));
        let (running, most_beside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for index in 0..count {
                let (schedule, running, most_beside) = (&schedule, &running, &most_beside);
                scope.spawn(move || {
                    let alone = index % 4 == 0;
                    let _permit = schedule.enter(Phase::Health, alone);
                    let beside = running.fetch_add(1, Ordering::SeqCst);
                    if alone {
                        most_beside.fetch_max(beside, Ordering::SeqCst);
                    }
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most_beside.into_inner(), 0);
    }

    #[test]
    fn a_panic_gives_the_permit_back() {
        let schedule = Schedule::new([Phase::Boot, Phase::Health].into_iter());
        let panicked = thread::scope(|scope| {
            let boot = scope.spawn(|| {
                let _permit = schedule.enter(Phase::Boot, true);
                panic!("expected by this test");
            });
            boot.join().is_err()
        });
        assert!(panicked);
        drop(schedule.enter(Phase::Health, false));
    }
}
