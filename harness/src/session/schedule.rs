//! Who may run when: phases in order, in each the cold machine before its copies, and scenarios that change a shared machine alone.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::scenario::model::{On, Phase, Scenario};

/// When a scenario's turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    phase: Phase,
    on: On,
}

impl Turn {
    /// Of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        Self { phase: scenario.phase, on: scenario.machine }
    }
}

/// Hands out permits. Every chosen scenario asks for exactly one.
///
/// Scenarios are started in the order of their phases, so one that waits for an earlier phase waits for others that run or
/// have run: there is always one that can go on.
pub struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Scenarios that have not finished, by turn.
    open: BTreeMap<Turn, usize>,
    running: usize,
    alone: bool,
    /// Waiting to run alone; those that need not be alone let it pass first.
    waiting_alone: usize,
}

impl Schedule {
    /// For scenarios with these turns.
    pub fn new(turns: impl Iterator<Item = Turn>) -> Self {
        let mut open = BTreeMap::new();
        for turn in turns {
            *open.entry(turn).or_default() += 1;
        }
        let state = State { open, running: 0, alone: false, waiting_alone: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until it is a scenario's turn.
    pub fn turn(&self, turn: Turn) -> Permit<'_> {
        let mut state = self.lock();
        while state.open.range(..turn).any(|(_, open)| *open > 0) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Permit { schedule: self, turn, runs: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It is a scenario's turn until this is dropped.
pub struct Permit<'a> {
    schedule: &'a Schedule,
    turn: Turn,
    runs: bool,
}

impl Permit<'_> {
    /// Waits until the scenario may run: until nothing else does if it must be alone, or else until nothing does that must be.
    pub fn begin(&mut self, alone: bool) {
        let mut state = self.schedule.lock();
        state.waiting_alone += usize::from(alone);
        while state.alone || (alone && state.running > 0) || (!alone && state.waiting_alone > 0) {
            state = self.schedule.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting_alone -= usize::from(alone);
        state.alone = alone;
        state.running += 1;
        self.runs = true;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.schedule.lock();
        if self.runs {
            state.running -= 1;
            state.alone = false;
        }
        if let Some(open) = state.open.get_mut(&self.turn) {
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

    const HEALTH: Turn = Turn { phase: Phase::Health, on: On::Fork };

    #[test]
    fn phases_run_in_order_and_copies_after_the_cold_machine() {
        let turn = |phase, on| Turn { phase, on };
        let boot = turn(Phase::Boot, On::Cold);
        let turns = [turn(Phase::Security, On::Fork), turn(Phase::Boot, On::ForkOnly), boot, boot];
        let schedule = Schedule::new(turns.into_iter());
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for turn in turns {
                let (schedule, order) = (&schedule, &order);
                scope.spawn(move || {
                    let mut permit = schedule.turn(turn);
                    permit.begin(false);
                    order.lock().unwrap().push(turn);
                });
            }
        });
        assert_eq!(order.into_inner().unwrap(), [boot, boot, turns[1], turns[0]]);
    }

    #[test]
    fn nothing_runs_beside_one_that_must_be_alone() {
        let count = 40;
        let schedule = Schedule::new(std::iter::repeat_n(HEALTH, count));
        let (running, most_beside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for index in 0..count {
                let (schedule, running, most_beside) = (&schedule, &running, &most_beside);
                scope.spawn(move || {
                    let alone = index % 4 == 0;
                    let mut permit = schedule.turn(HEALTH);
                    permit.begin(alone);
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
        let boot = Turn { phase: Phase::Boot, on: On::Cold };
        let schedule = Schedule::new([boot, HEALTH].into_iter());
        let panicked = thread::scope(|scope| {
            let boot = scope.spawn(|| {
                let mut permit = schedule.turn(boot);
                permit.begin(true);
                panic!("expected by this test");
            });
            boot.join().is_err()
        });
        assert!(panicked);
        schedule.turn(HEALTH).begin(false);
    }
}
