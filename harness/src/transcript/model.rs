//! What a transcript says. Integers only; times are RFC 3339 in UTC; every field is documented with its unit.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of this format. A reader reads those before it as well, and refuses any other.
pub const SCHEMA: u64 = 2;

/// The signed record of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// The version of this format: 1, or 2, which added forks and sensitivity.
    pub schema: u64,
    /// `spinup-YYYYMMDD-HHMMSS`, with `-N` where two sessions began in one second.
    pub test_session_id: String,
    /// The guest's name in its own profile: `P6-production`, `P6-reference`, …; `none` where nothing was booted.
    pub rave_version: String,
    /// When the session began.
    pub start_time: String,
    /// When its machine had ended and its image had been looked at again.
    pub completion_time: String,
    /// Whole seconds between the two.
    pub duration_seconds: u64,
    /// The verdict.
    pub overall_status: OverallStatus,
    /// Why the run was cut short or could not ask; empty otherwise.
    pub reasons: Vec<String>,
    /// The words the run was filtered by; empty for a full run.
    pub filters: Vec<String>,
    /// The machine that ran the harness.
    pub system_info: SystemInfo,
    /// `nix --version`, where it took part.
    pub nix_version: Option<String>,
    /// `sha256:…` of the disk file that was booted.
    pub image_digest: Option<String>,
    /// Where the image came from, and the digest of each of its files.
    pub image: Option<ImageRecord>,
    /// The machine it was booted in.
    pub machine: Option<MachineRecord>,
    /// What the guest says about itself.
    pub profile: Option<ProfileRecord>,
    /// What asked.
    pub harness: HarnessRecord,
    /// Counts over all results.
    pub test_summary: TestSummary,
    /// Results of the phases `config`, `image` and `boot`.
    pub validation_results: Vec<ScenarioRecord>,
    /// Results of the phase `health`.
    pub service_health: Vec<ScenarioRecord>,
    /// Results of the phase `oidc`.
    pub authentication_tests: Vec<ScenarioRecord>,
    /// Results of the phase `agent_control`.
    pub agent_control_tests: Vec<ScenarioRecord>,
    /// Results of the phase `sandbox`.
    pub sandbox_tests: Vec<ScenarioRecord>,
    /// Results of the phase `e2e`.
    pub end_to_end_tests: Vec<ScenarioRecord>,
    /// Results of the phase `performance`.
    pub performance_metrics: Vec<ScenarioRecord>,
    /// Results of the phase `security`.
    pub security_validation: Vec<ScenarioRecord>,
    /// Whether the questions notice what they ask about, where the run was told to find out (`RAVE_SABOTAGE=1`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<SensitivityRecord>,
    /// The transcripts this one was joined from; empty for one run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartRecord>,
    /// The key this transcript is signed with.
    pub signing_key: SigningKeyRecord,
    /// The minisign signature over the canonical form (RFC 8785) of this document without this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl Transcript {
    /// The lists of results with their field names and the phases they hold, in order.
    pub fn sections(&self) -> [(&'static str, &'static [&'static str], &Vec<ScenarioRecord>); 8] {
        [
            ("validation_results", &["config", "image", "boot"], &self.validation_results),
            ("service_health", &["health"], &self.service_health),
            ("authentication_tests", &["oidc"], &self.authentication_tests),
            ("agent_control_tests", &["agent_control"], &self.agent_control_tests),
            ("sandbox_tests", &["sandbox"], &self.sandbox_tests),
            ("end_to_end_tests", &["e2e"], &self.end_to_end_tests),
            ("performance_metrics", &["performance"], &self.performance_metrics),
            ("security_validation", &["security"], &self.security_validation),
        ]
    }

    /// All results in order.
    pub fn results(&self) -> impl Iterator<Item = &ScenarioRecord> + Clone {
        self.sections().into_iter().flat_map(|(_, _, records)| records)
    }

    /// Puts a result into the list of its phase, which is the part of its name before `::`.
    ///
    /// # Panics
    /// For a name without a known phase: the scenario reader lets none through.
    pub fn add(&mut self, record: ScenarioRecord) {
        let phase = record.name.split("::").next().unwrap_or_default().to_owned();
        let list = match phase.as_str() {
            "config" | "image" | "boot" => &mut self.validation_results,
            "health" => &mut self.service_health,
            "oidc" => &mut self.authentication_tests,
            "agent_control" => &mut self.agent_control_tests,
            "sandbox" => &mut self.sandbox_tests,
            "e2e" => &mut self.end_to_end_tests,
            "performance" => &mut self.performance_metrics,
            "security" => &mut self.security_validation,
            other => unreachable!("`{other}` is not a phase"),
        };
        list.push(record);
    }

    /// The verdict that follows from the results, for a run that was not cut short.
    pub fn status_of_results(&self) -> OverallStatus {
        let summary = TestSummary::of(self.results());
        let TestSummary { total_tests: _, passed, failed, warned, errored, skipped: _ } = summary;
        let deaf = self.sensitivity.as_ref().is_some_and(|sensitivity| !sensitivity.complete());
        // A run in which nothing was asked has shown nothing.
        if deaf || failed + errored > 0 || passed + warned == 0 {
            OverallStatus::Failed
        } else if warned > 0 {
            OverallStatus::Warning
        } else {
            OverallStatus::Success
        }
    }
}

/// A transcript that became part of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// Its session.
    pub test_session_id: String,
    /// `sha256:…` of its file.
    pub digest: String,
    /// The key it was signed with, and with which it verified.
    pub public_key: String,
}

/// The verdict of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum OverallStatus {
    /// Every result passed or was skipped for a reason given.
    Success,
    /// As above, with warnings.
    Warning,
    /// At least one failed or could not be asked, none was asked, or one was to be seen to fail and was not.
    Failed,
    /// The run was cut short.
    Aborted,
}

impl OverallStatus {
    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Warning => "WARNING",
            Self::Failed => "FAILED",
            Self::Aborted => "ABORTED",
        }
    }
}

/// The machine that ran the harness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemInfo {
    /// `PRETTY_NAME` of `os-release`.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// `x86_64`, …
    pub architecture: String,
    /// Logical processors this process may use.
    pub cpus: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
}

/// Where an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// `nix`, `reference` or `path`.
    pub provider: String,
    /// Why this provider.
    pub reason: String,
    /// Every file that took part in booting, disk first.
    pub files: Vec<FileRecord>,
    /// The kernel command line, where it is booted directly.
    pub kernel_command_line: Option<String>,
    /// Number of lines of the package list.
    pub package_count: Option<u64>,
    /// Seconds its build took, when it was built.
    pub built_seconds: Option<u64>,
    /// Nix store path.
    pub store_path: Option<String>,
    /// Nix's hash of that path's contents; not there where no Nix was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nar_hash: Option<String>,
    /// Nix derivation.
    pub derivation: Option<String>,
    /// Whether every file still had its digest after the machine had ended; `null` where nothing was booted.
    pub unchanged_after_run: Option<bool>,
}

/// A file and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// `disk`, `kernel`, `initrd` or `packages`.
    pub role: String,
    /// Path at the time of the run.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// `sha256:…`.
    pub digest: String,
}

/// The machine an image was booted in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineRecord {
    /// QEMU's version.
    pub qemu_version: String,
    /// The exact arguments.
    pub arguments: Vec<String>,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why that one.
    pub accelerator_reason: String,
    /// `cold`: this session booted it; or `saved`: an earlier one did.
    pub origin: String,
    /// Factor by which time limits of scenarios were stretched.
    pub time_factor: u64,
    /// What the guest's service manager said when it was ready.
    pub ready_state: Option<String>,
    /// Milliseconds from the start of QEMU to the readiness event.
    pub ready_ms: Option<u64>,
    /// When that was. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<String>,
    /// How scenarios got machines of their own; absent where none asked for one. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forks: Option<ForksRecord>,
    /// Why the machine did not come up or was lost.
    pub failure: Option<String>,
}

/// How scenarios got machines of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForksRecord {
    /// How the memory of the saved machine gets into its forks: `x-ignore-shared` (mapped from one file), `mapped-ram` (read by each);
    /// `none`: there are no forks, all scenarios were asked on the one machine.
    pub method: String,
    /// Why that one.
    pub reason: String,
    /// The saved machine; `null` where there is none.
    pub saved: Option<SavedRecord>,
}

/// A machine that was saved after it had become ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedRecord {
    /// The session that booted and saved it, a slash, and the beginning of its host key's fingerprint.
    pub id: String,
    /// When it became ready.
    pub booted_at: String,
    /// When it was saved.
    pub saved_at: String,
    /// How long it had been ready by then, milliseconds.
    pub ready_for_ms: u64,
    /// How long the saving took, milliseconds.
    pub save_ms: u64,
    /// Resident memory of QEMU when it was saved, MiB.
    pub rss_mib: u64,
}

/// What the guest says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileRecord {
    /// `P6-production`, `P6-reference`, …
    pub name: String,
    /// Its version.
    pub version: String,
    /// Capability to what stands behind it.
    pub capabilities: BTreeMap<String, ImplementationRecord>,
}

/// What stands behind a capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImplementationRecord {
    /// Name and version.
    pub implementation: String,
    /// It stands in for the real one.
    pub stand_in: bool,
}

/// What asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HarnessRecord {
    /// Version of this program.
    pub version: String,
    /// Git commit of the project's folder, where it is a checkout.
    pub git_commit: Option<String>,
    /// Whether that checkout had changes.
    pub git_dirty: Option<bool>,
    /// The settings, by variable name.
    pub settings: BTreeMap<String, String>,
}

/// Counts over all results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSummary {
    /// All of them.
    pub total_tests: u64,
    /// The answer was as expected.
    pub passed: u64,
    /// The guest gave another answer.
    pub failed: u64,
    /// Another answer, in a step that only warns.
    pub warned: u64,
    /// It could not be asked.
    pub errored: u64,
    /// It was not asked, for a reason given.
    pub skipped: u64,
}

impl TestSummary {
    /// Counts the results.
    pub fn of<'a>(results: impl Iterator<Item = &'a ScenarioRecord>) -> Self {
        let mut summary = Self::default();
        for result in results {
            summary.total_tests += 1;
            *match result.outcome {
                Outcome::Passed => &mut summary.passed,
                Outcome::Failed => &mut summary.failed,
                Outcome::Warned => &mut summary.warned,
                Outcome::Errored => &mut summary.errored,
                Outcome::Skipped => &mut summary.skipped,
            } += 1;
        }
        summary
    }
}

/// How a scenario or a step ended; from mildest to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Not asked, with the reason.
    Skipped,
    /// As expected.
    Passed,
    /// Another answer, in a step that only warns.
    Warned,
    /// Another answer.
    Failed,
    /// Could not be asked.
    Errored,
}

impl Outcome {
    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Passed => "passed",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Errored => "errored",
        }
    }
}

/// The result of one scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioRecord {
    /// `phase::name`.
    pub name: String,
    /// What holds if it passes.
    pub summary: String,
    /// The scenario file, relative to the project's folder.
    pub file: String,
    /// How it ended: that of its worst step.
    pub outcome: Outcome,
    /// Why it was skipped or could not be asked; empty otherwise.
    pub reason: String,
    /// Who answered: `capability: implementation`, for every capability it needs.
    pub answered_by: Vec<String>,
    /// Whether one of those is a stand-in.
    pub on_stand_in: bool,
    /// `cold`: the booted machine, before it was saved; `fork`: a copy for this scenario alone; `shared`: the booted machine, with others;
    /// `none` where no machine was needed.
    pub machine: String,
    /// The copy, if it was one. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<ForkRecord>,
    /// When it began: milliseconds since the session began.
    pub started_ms: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Its steps in order, up to the last one asked.
    pub steps: Vec<StepRecord>,
}

/// A copy of the saved machine, made for one scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkRecord {
    /// The saved machine it is a copy of.
    pub of: String,
    /// When it began to run: milliseconds since the session began.
    pub began_ms: u64,
    /// From the decision to make it until it ran, milliseconds.
    pub running_ms: u64,
    /// From then until its clock was set and it had random numbers of its own, milliseconds.
    pub awake_ms: u64,
    /// How far its clock was from this machine's after that, at most, milliseconds.
    pub clock_off_ms: u64,
    /// The first random bytes it gave, hexadecimal: no two forks give the same.
    pub random: String,
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// What was asked, in the author's words.
    pub name: String,
    /// Its line in the scenario file.
    pub line: u64,
    /// `run`, `host`, `http`, `port` or `measure`.
    pub kind: String,
    /// The question as it was put, secrets masked.
    pub asked: String,
    /// What the answer had to be.
    pub expectations: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was skipped or could not be asked; empty otherwise.
    pub reason: String,
    /// What was different; empty unless failed or warned.
    pub mismatches: Vec<MismatchRecord>,
    /// How often it was asked.
    pub attempts: u64,
    /// When it was first asked: milliseconds since the session began.
    pub started_ms: u64,
    /// From the first question to the last answer, milliseconds.
    pub took_ms: u64,
    /// The last answer; `null` where there was none.
    pub answer: Option<AnswerRecord>,
}

/// Whether scenarios notice what they are there to notice: what was broken on purpose, and which steps then did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SensitivityRecord {
    /// Counts over all of it.
    pub summary: SensitivitySummary,
    /// The scenarios.
    pub scenarios: Vec<ScenarioSensitivity>,
}

impl SensitivityRecord {
    /// With the counts that follow from the scenarios.
    pub fn of(scenarios: Vec<ScenarioSensitivity>) -> Self {
        Self { summary: SensitivitySummary::of(&scenarios), scenarios }
    }

    /// As if no step were there that no sabotage names.
    pub fn without_unseen(self) -> Self {
        let mut scenarios = self.scenarios;
        for scenario in &mut scenarios {
            scenario.steps.retain(|step| step.verdict != Sensitivity::Unseen);
        }
        Self::of(scenarios)
    }

    /// Whether every step was seen to fail that can, and all came as declared.
    pub fn complete(&self) -> bool {
        let SensitivitySummary { unseen, unexpected, .. } = self.summary;
        let held = |scenario: &ScenarioSensitivity| scenario.unbroken <= Outcome::Warned;
        unseen + unexpected == 0
            && self.scenarios.iter().all(|scenario| held(scenario) || scenario.unbroken == Outcome::Skipped)
    }
}

impl SensitivitySummary {
    /// Counts over all steps and sabotages of the scenarios.
    pub fn of(scenarios: &[ScenarioSensitivity]) -> Self {
        let mut summary = Self::default();
        for step in scenarios.iter().flat_map(|scenario| &scenario.steps) {
            summary.steps += 1;
            *match step.verdict {
                Sensitivity::Seen => &mut summary.seen,
                Sensitivity::Unbreakable => &mut summary.unbreakable,
                Sensitivity::Skipped => &mut summary.skipped,
                Sensitivity::Unseen => &mut summary.unseen,
            } += 1;
        }
        for sabotage in scenarios.iter().flat_map(|scenario| &scenario.sabotages) {
            summary.sabotages += 1;
            summary.unexpected += u64::from(!sabotage.as_declared);
        }
        summary
    }
}

/// Counts of steps and sabotages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SensitivitySummary {
    /// All steps.
    pub steps: u64,
    /// Seen not to hold at least once.
    pub seen: u64,
    /// Said to be unbreakable, with the reason.
    pub unbreakable: u64,
    /// Not asked, for a reason given.
    pub skipped: u64,
    /// None of these.
    pub unseen: u64,
    /// All sabotages that were carried out or should have been.
    pub sabotages: u64,
    /// Sabotages after which something else happened than they declare.
    pub unexpected: u64,
}

impl fmt::Display for SensitivitySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, seen, unbreakable, skipped, unseen, sabotages, unexpected } = self;
        write!(
            f,
            "of {steps} steps {seen} were seen to fail, {unbreakable} cannot, {skipped} were skipped, {unseen} never were; \
             {unexpected} of {sabotages} sabotages came otherwise than declared"
        )
    }
}

/// One scenario and what was broken under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioSensitivity {
    /// `phase::name`.
    pub name: String,
    /// The scenario file, relative to the project's folder.
    pub file: String,
    /// How it ended while nothing was broken; a scenario without a sabotage is not asked, and `skipped`.
    pub unbroken: Outcome,
    /// Why it was skipped or did not hold; empty otherwise.
    pub reason: String,
    /// Its steps in order.
    pub steps: Vec<StepSensitivity>,
    /// Its sabotages in order.
    pub sabotages: Vec<SabotageRecord>,
}

/// Whether one step was seen not to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSensitivity {
    /// What it asks.
    pub name: String,
    /// Its line in the scenario file.
    pub line: u64,
    /// Whether it was.
    pub verdict: Sensitivity,
    /// The sabotages after which it did not hold, of those that name it.
    pub seen_after: Vec<String>,
    /// Why it is unbreakable or was skipped; empty otherwise.
    pub reason: String,
}

/// Whether a step was ever seen not to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    /// It was.
    Seen,
    /// No sabotage can make it fail.
    Unbreakable,
    /// It was not asked.
    Skipped,
    /// It never was.
    Unseen,
}

/// One sabotage and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SabotageRecord {
    /// What was broken, in the author's words.
    pub name: String,
    /// Its line in the scenario file.
    pub line: u64,
    /// Whether all happened that it declares, and nothing that it must not.
    pub as_declared: bool,
    /// Why it could not be carried out; empty otherwise.
    pub reason: String,
    /// Named steps that held all the same, or were not asked.
    pub unnoticed: Vec<String>,
    /// Steps before the first that noticed which could not be asked, though nobody said so.
    pub errored: Vec<String>,
    /// Steps that did not hold and are not named: they may be worth naming.
    pub also_failed: Vec<String>,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// One difference between what was expected and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MismatchRecord {
    /// The line of the expectation in the scenario file.
    pub line: u64,
    /// The part of the answer.
    pub what: String,
    /// What it had to be.
    pub expected: String,
    /// What it was, cut.
    pub actual: String,
}

/// An answer: how it ended, and its streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRecord {
    /// `exit 0`, `killed by SIGKILL`, `HTTP 302`, `open`, …
    pub status: String,
    /// The streams: `stdout`, `stderr`, `headers`, `body`, `value`.
    pub streams: BTreeMap<String, StreamRecord>,
}

/// One stream of an answer, secrets masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// `sha256:…` of all of it.
    pub digest: String,
    /// Its beginning, as text.
    pub excerpt: String,
    /// Where all of it is, relative to the session's folder, if the excerpt is not all.
    pub file: Option<String>,
}

/// The key a transcript is signed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SigningKeyRecord {
    /// The minisign public key, base64 as `minisign -P` takes it.
    pub public_key: String,
    /// It was made for this session: the signature proves that nothing changed since, not who signed.
    pub ephemeral: bool,
}
