//! Asks the questions of one scenario, in order, and records what came back. Knows nothing of signatures and reports.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use super::accounts::is_of_account;
use super::evidence::Evidence;
use super::expect::{Answer, Mismatch, Taken, capture, judge, secrets};
use super::facts::Facts;
use super::host::{self, HostError};
use super::http::{Browser, Origin, Response};
use super::mask::Mask;
use super::model::{Ask, Level, Requires, Scenario, Skip, Step, Variables};
use crate::error::chain;
use crate::guest::{AskError, Captured, Exit, Guest};
use crate::interrupt::Interrupt;
use crate::transcript::model::{AnswerRecord, MismatchRecord, Outcome, ScenarioRecord, StepRecord};
use crate::wait::{self, Probe, WaitError};

/// The way to a booted machine.
pub trait Target: Sync {
    /// Its SSH side.
    fn guest(&self) -> &Guest;
    /// Its public address.
    fn origin(&self) -> &Origin;
    /// Why it is no longer there, if it is not, as far as is known.
    fn lost(&self) -> Option<String>;
    /// The same for certain: it is asked, since the end of a connection may be noticed before the machine's own.
    fn lost_for_certain(&self) -> Option<String>;
    /// Forwards a loopback address to a port of the guest until the value is dropped.
    ///
    /// # Errors
    /// If QEMU refuses.
    fn forward(&self, port: u16) -> Result<(SocketAddr, Box<dyn Send>), String>;
}

/// What a scenario is run with.
pub struct Context<'a> {
    /// For requests.
    pub runtime: &'a tokio::runtime::Handle,
    /// The booted machine; only scenarios that need none may run without.
    pub target: Option<&'a dyn Target>,
    /// What the run itself knows.
    pub facts: &'a Facts,
    /// Secrets.
    pub mask: &'a Mask,
    /// Secrets the run made, by name: those of the scenarios, and those of the accounts.
    pub secrets: &'a Variables,
    /// Ends everything early.
    pub interrupt: &'a Interrupt,
    /// When the session began.
    pub session_start: Instant,
    /// The session's folder.
    pub session_folder: &'a Utf8Path,
    /// Where host commands run.
    pub root: &'a Utf8Path,
    /// What their environment has besides the harness's own.
    pub env: &'a [(String, String)],
    /// Time limits are stretched by this.
    pub time_factor: u32,
    /// Today, UTC: skips and allowances end on a date.
    pub today: jiff::civil::Date,
    /// Questions and answers on stderr.
    pub debug: bool,
}

/// Something that is broken while a scenario is asked.
pub struct Breach<'a> {
    /// The index of the step before which it is broken.
    pub before: usize,
    /// The index of the last step that is asked.
    pub last: usize,
    /// Breaks it, and is given all variables that have a value by then.
    pub act: &'a dyn Fn(&Variables) -> Result<(), String>,
}

/// Runs a scenario. The record lacks what only the session knows: who answered, and on which machine.
///
/// After a step that does not hold, those that come would ask about a state that is not there, so they are not asked.
pub fn run(scenario: &Scenario, context: &Context<'_>) -> ScenarioRecord {
    ask_all(scenario, context, |run, steps| {
        for (index, step) in scenario.steps.iter().enumerate() {
            let record = run.step(index + 1, step);
            let over = record.outcome >= Outcome::Failed;
            steps.push(record);
            if over {
                break;
            }
        }
        Ok(())
    })
    .unwrap_or_else(|never: std::convert::Infallible| match never {})
}

/// Runs a scenario in which something is broken. Steps are asked whatever came of those before.
///
/// # Errors
/// If it could not be broken.
pub fn run_broken(scenario: &Scenario, context: &Context<'_>, breach: &Breach<'_>) -> Result<ScenarioRecord, String> {
    ask_all(scenario, context, |run, steps| {
        for (index, step) in scenario.steps.iter().enumerate().take(breach.last + 1) {
            if index == breach.before {
                (breach.act)(&run.variables)?;
            }
            steps.push(run.step(index + 1, step));
        }
        Ok(())
    })
}

fn ask_all<'a, E>(
    scenario: &'a Scenario,
    context: &'a Context<'a>,
    ask: impl FnOnce(&mut Run<'a>, &mut Vec<StepRecord>) -> Result<(), E>,
) -> Result<ScenarioRecord, E> {
    let started = Instant::now();
    let mut run = Run {
        scenario,
        context,
        deadline: started + scenario.timeout * context.time_factor,
        browser: OnceLock::new(),
        variables: variables(scenario, context),
        evidence: Evidence {
            session: context.session_folder.to_owned(),
            scenario: Utf8PathBuf::from(scenario.name.replace("::", "/")),
            mask: context.mask,
        },
    };
    let mut steps = Vec::new();
    ask(&mut run, &mut steps)?;
    let worst = steps.iter().max_by_key(|step| step.outcome);
    Ok(ScenarioRecord {
        name: scenario.name.clone(),
        summary: scenario.summary.clone(),
        file: relative(&scenario.file, context.root),
        outcome: worst.map_or(Outcome::Errored, |step| step.outcome),
        reason: worst.map(|step| step.reason.clone()).unwrap_or_default(),
        answered_by: Vec::new(),
        on_stand_in: false,
        machine: "none".to_owned(),
        fork: None,
        started_ms: milliseconds(started.duration_since(context.session_start)),
        took_ms: milliseconds(started.elapsed()),
        steps,
    })
}

/// A path as it reads in the project's folder.
pub fn relative(file: &Utf8Path, root: &Utf8Path) -> String {
    file.strip_prefix(root).unwrap_or(file).to_string()
}

fn variables(scenario: &Scenario, context: &Context<'_>) -> Variables {
    let used = scenario.steps.iter().flat_map(|step| &step.uses);
    let facts = used.clone().filter_map(|name| Some((name.clone(), context.facts.get(name).ok()?)));
    let mut variables: Variables = facts.collect();
    let of_accounts = used.clone().filter(|name| is_of_account(name));
    let own = scenario.secrets.iter().chain(of_accounts).filter_map(|name| context.secrets.get_key_value(name));
    variables.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    variables
}

/// Whole milliseconds, as a transcript counts them.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Run<'a> {
    scenario: &'a Scenario,
    context: &'a Context<'a>,
    deadline: Instant,
    browser: OnceLock<Browser>,
    variables: Variables,
    evidence: Evidence<'a>,
}

/// Why a question brought no answer, and whether asking again could help.
enum NoAnswer {
    Passing(String),
    Final(String),
}

/// An answer with what was found wrong in it.
struct Judged {
    answer: Answer,
    mismatches: Vec<MismatchRecord>,
}

impl Run<'_> {
    fn step(&mut self, number: usize, step: &Step) -> StepRecord {
        let began = Instant::now();
        let mut record = StepRecord {
            name: step.name.clone(),
            line: step.line,
            kind: kind(&step.ask).to_owned(),
            asked: self.context.mask.text(&self.asked(&step.ask)),
            expectations: step
                .expectations
                .iter()
                .map(|expectation| self.context.mask.text(&expectation.describe()))
                .collect(),
            outcome: Outcome::Passed,
            reason: String::new(),
            mismatches: Vec::new(),
            attempts: 0,
            started_ms: milliseconds(began.duration_since(self.context.session_start)),
            took_ms: 0,
            answer: None,
        };
        if let Some(Skip { reason, until, tracker }) = step.skip.as_ref().filter(|skip| skip.holds(self.context.today))
        {
            let tracker = if tracker.is_empty() { String::new() } else { format!(" ({tracker})") };
            record.outcome = Outcome::Skipped;
            record.reason = format!("{reason}, until {until}{tracker}");
            return record;
        }
        let measured = match &step.ask {
            Ask::Measure { fact } if !self.context.facts.is_known(fact) => Some(fact),
            _ => None,
        };
        let used = step.uses.iter().find(|name| !self.variables.contains_key(*name));
        if let Some(missing) = measured.or(used) {
            record.outcome = Outcome::Skipped;
            record.reason =
                self.context.facts.get(missing).err().unwrap_or_else(|| format!("`{missing}` is not known"));
            return record;
        }
        self.debug(&format!("asks {}: {}", record.kind, record.asked));
        let (last, failure) = self.ask_until(step, &mut record.attempts);
        record.took_ms = milliseconds(began.elapsed());
        if let Some(Judged { answer, mismatches }) = last {
            let headers = header_text(&answer);
            match self.evidence.keep(number, &streams(&answer, &headers)) {
                Ok(streams) => record.answer = Some(AnswerRecord { status: status(&answer), streams }),
                Err(error) => {
                    record.outcome = Outcome::Errored;
                    record.reason = format!("could not keep the answer in {}: {error}", self.evidence.session);
                    return record;
                }
            }
            let holds = failure.is_none() && mismatches.is_empty();
            record.mismatches = mismatches;
            if holds {
                self.take(step, &answer, &mut record);
            }
        }
        if let Some(reason) = failure {
            record.outcome = Outcome::Errored;
            record.reason = self.context.mask.text(&reason);
        } else if !record.mismatches.is_empty() {
            record.outcome = if step.level == Level::Warn { Outcome::Warned } else { Outcome::Failed };
        }
        self.debug(&format!("{}: {} after {} ms", record.name, record.outcome.word(), record.took_ms));
        record
    }

    /// Asks once, or until it holds. The last answer comes with the reason why the question could not be asked, if so.
    fn ask_until(&mut self, step: &Step, attempts: &mut u64) -> (Option<Judged>, Option<String>) {
        let within = step.within.map(|within| Instant::now() + within * self.context.time_factor);
        let deadline = within.unwrap_or_else(Instant::now).min(self.deadline);
        let mut last = None;
        let waited = wait::until(deadline, || {
            if let Some(reason) = self.context.interrupt.reason() {
                return Err(cut_short(reason));
            }
            if let Some(reason) = self.needs_machine(step).and_then(Target::lost) {
                return Err(format!("the machine was lost: {reason}"));
            }
            *attempts += 1;
            // The last question may take as long as any: cut off at the deadline it would never have an answer.
            match self.ask(&step.ask, self.deadline) {
                Ok(answer) => {
                    // A mismatch may show what this very step takes as a secret.
                    secrets(step, &answer).iter().for_each(|secret| self.context.mask.add(secret));
                    self.debug_answer(&answer);
                    let mismatches = self.judge(step, &answer);
                    let differs = mismatches.first().map(|first| format!("{}: {}", first.what, first.actual));
                    last = Some(Judged { answer, mismatches });
                    Ok(differs.map_or(Probe::Ready(None), Probe::NotYet))
                }
                Err(NoAnswer::Final(reason)) => Err(self.because_lost(step, reason)),
                Err(NoAnswer::Passing(reason)) => {
                    self.debug(&format!("no answer: {reason}"));
                    last = None;
                    if within.is_none() { Ok(Probe::Ready(Some(reason))) } else { Ok(Probe::NotYet(reason)) }
                }
            }
        });
        match waited {
            Ok(None) => (last, None),
            Ok(Some(reason)) => (last, Some(self.because_lost(step, reason))),
            Err(WaitError::Never(reason)) => (last, Some(reason)),
            // The guest answered, and otherwise than expected, to the end: that is a failure, not a missing answer.
            Err(WaitError::Deadline { .. }) if last.is_some() => (last, None),
            Err(WaitError::Deadline { asked, last: reason }) => {
                let reason = self.because_lost(step, reason);
                (None, Some(format!("no answer after {asked} tries; the last: {reason}")))
            }
        }
    }

    /// The machine a step is asked of, if it is one of those.
    fn needs_machine(&self, step: &Step) -> Option<&dyn Target> {
        self.context.target.filter(|_| step.requires == Requires::Machine)
    }

    /// A run that is over, or a machine that is gone, explains every failure to ask.
    fn because_lost(&self, step: &Step, reason: String) -> String {
        if let Some(why) = self.context.interrupt.reason() {
            return cut_short(why);
        }
        match self.needs_machine(step).and_then(Target::lost_for_certain) {
            Some(lost) => format!("the machine was lost: {lost} ({reason})"),
            None => reason,
        }
    }

    fn ask(&self, ask: &Ask, deadline: Instant) -> Result<Answer, NoAnswer> {
        match ask {
            Ask::Run { command, user, stdin } => {
                let stdin = stdin.as_ref().map(|text| text.fill(&self.variables).into_bytes());
                let command = command.fill(&self.variables);
                let guest = self.target()?.guest();
                match guest.run(user, &command, stdin.as_deref(), deadline) {
                    Ok(captured) => Ok(Answer::Command(captured)),
                    Err(error @ (AskError::NulByte | AskError::Cancelled { .. } | AskError::TooMuchOutput { .. })) => {
                        Err(NoAnswer::Final(chain(&error)))
                    }
                    Err(error) => Err(NoAnswer::Passing(chain(&error))),
                }
            }
            Ask::Host { command, stdin } => {
                let stdin = stdin.as_ref().map(|text| text.fill(&self.variables));
                let command = command.fill(&self.variables);
                let place = host::Place { folder: self.context.root, env: self.context.env };
                match host::run(&command, stdin.as_deref(), place, deadline, self.context.interrupt.flag()) {
                    Ok(captured) => Ok(Answer::Command(captured)),
                    Err(error @ HostError::TooLong(_)) => Err(NoAnswer::Passing(chain(&error))),
                    Err(error) => Err(NoAnswer::Final(chain(&error))),
                }
            }
            Ask::Http(request) => {
                let origin = self.target()?.origin();
                let browser = self.browser.get_or_init(|| Browser::new(origin.clone()));
                let limit = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                let answer = self.context.runtime.block_on(async {
                    tokio::select! {
                        answer = browser.ask(request, &self.variables, limit) => Some(answer),
                        () = self.context.interrupt.wait() => None,
                    }
                });
                match answer {
                    Some(Ok(Response { status, headers, body })) => Ok(Answer::Http { status, headers, body }),
                    Some(Err(error)) => Err(NoAnswer::Passing(chain(&error))),
                    None => Err(NoAnswer::Final("the run was cut short".to_owned())),
                }
            }
            Ask::Port { port, send } => {
                let (address, _forward) = self.target()?.forward(*port).map_err(NoAnswer::Final)?;
                let send = send.fill(&self.variables);
                let said = host::ask_port(address, send.as_bytes(), deadline);
                let said = said.map_err(|error| NoAnswer::Passing(error.to_string()))?;
                Ok(Answer::Port { answered: !said.is_empty(), body: said })
            }
            Ask::Measure { fact } => self.context.facts.get(fact).map(Answer::Measure).map_err(NoAnswer::Final),
        }
    }

    fn target(&self) -> Result<&dyn Target, NoAnswer> {
        self.context.target.ok_or_else(|| NoAnswer::Final("there is no machine".to_owned()))
    }

    fn judge(&self, step: &Step, answer: &Answer) -> Vec<MismatchRecord> {
        let mask = |text: String| self.context.mask.text(&text);
        let mismatches = judge(step, answer, &self.variables, self.context.today);
        let record = |mismatch: Mismatch| MismatchRecord {
            line: mismatch.line,
            what: mismatch.what,
            expected: mask(mismatch.expected),
            actual: mask(mismatch.actual),
        };
        mismatches.into_iter().map(record).collect()
    }

    /// Takes the step's captures out of the answer.
    fn take(&mut self, step: &Step, answer: &Answer, record: &mut StepRecord) {
        match capture(step, answer) {
            Ok(captured) => {
                self.variables.extend(captured.into_iter().map(|Taken { name, value, secret: _ }| (name, value)));
            }
            Err(mismatch) => {
                let actual = self.context.mask.text(&mismatch.actual);
                record.mismatches.push(MismatchRecord {
                    line: mismatch.line,
                    what: mismatch.what,
                    expected: mismatch.expected,
                    actual,
                });
            }
        }
    }

    fn asked(&self, ask: &Ask) -> String {
        match ask {
            Ask::Run { command, user, stdin: _ } => format!("{user}: {}", command.fill(&self.variables)),
            Ask::Host { command, stdin: _ } => command.fill(&self.variables),
            Ask::Http(request) => format!("{} {}", request.method, request.url.fill(&self.variables)),
            Ask::Port { port, send: _ } => format!("port {port}, from outside"),
            Ask::Measure { fact } => fact.clone(),
        }
    }

    fn debug_answer(&self, answer: &Answer) {
        if self.context.debug {
            let headers = header_text(answer);
            for (name, bytes) in streams(answer, &headers) {
                self.debug(&format!("{}, {name}: {}", status(answer), String::from_utf8_lossy(bytes).trim_end()));
            }
        }
    }

    fn debug(&self, text: &str) {
        if self.context.debug {
            crate::interrupt::tell(&format!("{}: {}", self.scenario.name, self.context.mask.text(text)));
        }
    }
}

fn cut_short(why: &str) -> String {
    format!("the run was cut short: {why}")
}

fn kind(ask: &Ask) -> &'static str {
    match ask {
        Ask::Run { .. } => "run",
        Ask::Host { .. } => "host",
        Ask::Http(_) => "http",
        Ask::Port { .. } => "port",
        Ask::Measure { .. } => "measure",
    }
}

/// How an answer ended, in words.
fn status(answer: &Answer) -> String {
    match answer {
        Answer::Command(Captured { exit: Exit::Status(status), .. }) => format!("exit {status}"),
        Answer::Command(Captured { exit: Exit::Signal(name), .. }) => format!("killed by SIG{name}"),
        Answer::Http { status, .. } => format!("HTTP {status}"),
        Answer::Port { answered: true, .. } => "answered".to_owned(),
        Answer::Port { answered: false, .. } => "no answer".to_owned(),
        Answer::Measure(_) => "measured".to_owned(),
    }
}

fn header_text(answer: &Answer) -> String {
    match answer {
        Answer::Http { headers, .. } => headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect(),
        _ => String::new(),
    }
}

/// The parts of an answer that are kept.
fn streams<'a>(answer: &'a Answer, headers: &'a str) -> Vec<(&'static str, &'a [u8])> {
    match answer {
        Answer::Command(captured) => vec![("stdout", &captured.stdout), ("stderr", &captured.stderr)],
        Answer::Http { body, .. } => vec![("headers", headers.as_bytes()), ("body", body)],
        Answer::Port { body, .. } => vec![("body", body)],
        Answer::Measure(value) => vec![("value", value.as_bytes())],
    }
}
