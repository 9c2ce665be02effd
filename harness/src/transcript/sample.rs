//! A small transcript for tests: one of everything, all of it passed.

use std::collections::BTreeMap;

use super::model::*;

/// The digest of its disk.
pub const DISK: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A transcript of a machine that booted and answered, without a signature.
pub fn transcript() -> Transcript {
    let records = [scenario("boot::ready"), on_fork(scenario("health::nginx"))];
    let mut transcript = Transcript {
        schema: SCHEMA,
        test_session_id: "spinup-20261124-120000".into(),
        rave_version: "P6-reference".into(),
        start_time: "2026-11-24T12:00:00.250Z".into(),
        completion_time: "2026-11-24T12:03:00.100Z".into(),
        duration_seconds: 179,
        overall_status: OverallStatus::Success,
        reasons: Vec::new(),
        filters: Vec::new(),
        system_info: SystemInfo {
            os: "Debian GNU/Linux 13 (trixie)".into(),
            kernel: "6.12.0".into(),
            architecture: "x86_64".into(),
            cpus: 2,
            memory_mib: 24_000,
        },
        nix_version: None,
        image_digest: Some(DISK.into()),
        image: Some(ImageRecord {
            provider: "reference".into(),
            reason: "RAVE_IMAGE asks for it".into(),
            files: vec![FileRecord { role: "disk".into(), path: "disk.qcow2".into(), bytes: 1, digest: DISK.into() }],
            kernel_command_line: None,
            package_count: Some(1),
            built_seconds: Some(200),
            store_path: None,
            nar_hash: None,
            derivation: None,
            unchanged_after_run: Some(true),
        }),
        machine: Some(MachineRecord {
            qemu_version: "10.0".into(),
            arguments: vec!["qemu-system-x86_64".into()],
            accelerator: "tcg".into(),
            accelerator_reason: "asked for".into(),
            origin: "cold".into(),
            time_factor: 4,
            ready_state: Some("running".into()),
            ready_ms: Some(100_000),
            ready_at: Some("2026-11-24T12:01:41.000Z".into()),
            forks: Some(ForksRecord {
                method: "x-ignore-shared".into(),
                reason: "a fork was made and checked".into(),
                saved: Some(SavedRecord {
                    id: "spinup-20261124-120000/AbCdEfGh".into(),
                    booted_at: "2026-11-24T12:01:41.000Z".into(),
                    saved_at: "2026-11-24T12:01:42.000Z".into(),
                    ready_for_ms: 1000,
                    save_ms: 40,
                    rss_mib: 700,
                }),
            }),
            failure: None,
        }),
        profile: Some(ProfileRecord {
            name: "P6-reference".into(),
            version: "0.1.0".into(),
            capabilities: BTreeMap::from([(
                "nginx".into(),
                ImplementationRecord { implementation: "nginx 1.26".into(), stand_in: false },
            )]),
        }),
        harness: HarnessRecord {
            version: "0.1.0".into(),
            git_commit: None,
            git_dirty: None,
            settings: BTreeMap::new(),
        },
        test_summary: TestSummary::of(records.iter()),
        validation_results: Vec::new(),
        service_health: Vec::new(),
        authentication_tests: Vec::new(),
        agent_control_tests: Vec::new(),
        sandbox_tests: Vec::new(),
        end_to_end_tests: Vec::new(),
        performance_metrics: Vec::new(),
        security_validation: Vec::new(),
        sensitivity: None,
        parts: Vec::new(),
        signing_key: SigningKeyRecord { public_key: String::new(), ephemeral: true },
        signature: None,
    };
    records.into_iter().for_each(|record| transcript.add(record));
    transcript
}

/// The same, asked on a fork of that transcript's machine.
fn on_fork(record: ScenarioRecord) -> ScenarioRecord {
    let fork = ForkRecord {
        of: "spinup-20261124-120000/AbCdEfGh".into(),
        began_ms: 101_000,
        running_ms: 200,
        awake_ms: 100,
        clock_off_ms: 20,
        random: "00".repeat(32),
    };
    ScenarioRecord { machine: "fork".into(), fork: Some(fork), ..record }
}

/// A scenario with one step that passed.
pub fn scenario(name: &str) -> ScenarioRecord {
    let stream = StreamRecord {
        bytes: 3,
        digest: "sha256:dc51b8c96c2d745df3bd5590d990230a482fd247123599548e0632fdbf97fc22".into(),
        excerpt: "ok\n".into(),
        file: None,
    };
    let step = StepRecord {
        name: "it answers".into(),
        line: 4,
        kind: "run".into(),
        asked: "root: true".into(),
        expectations: vec!["exit = 0".into()],
        outcome: Outcome::Passed,
        reason: String::new(),
        mismatches: Vec::new(),
        attempts: 1,
        started_ms: 100_000,
        took_ms: 12,
        answer: Some(AnswerRecord { status: "exit 0".into(), streams: BTreeMap::from([("stdout".into(), stream)]) }),
    };
    ScenarioRecord {
        name: name.into(),
        summary: "It answers".into(),
        file: format!("scenarios/{}.toml", name.replace("::", "/")),
        outcome: Outcome::Passed,
        reason: String::new(),
        answered_by: vec!["nginx: nginx 1.26".into()],
        on_stand_in: false,
        machine: "cold".into(),
        fork: None,
        started_ms: 100_000,
        took_ms: 15,
        steps: vec![step],
    }
}

/// One scenario of which one step was asked with something broken.
pub fn sensitivity(verdict: Sensitivity) -> SensitivityRecord {
    let step =
        StepSensitivity { name: "it answers".into(), line: 3, verdict, seen_after: Vec::new(), reason: String::new() };
    SensitivityRecord::of(vec![ScenarioSensitivity {
        name: "health::nginx".into(),
        file: "scenarios/health/nginx.toml".into(),
        unbroken: Outcome::Passed,
        reason: String::new(),
        steps: vec![step],
        sabotages: Vec::new(),
    }])
}
