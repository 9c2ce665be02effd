//! A run that is told of earlier ones warns when it has left their band.

use crate::support::Project;

const REGRESSION: &str = include_str!("../../../scenarios/performance/regression.toml");

fn project(seconds: &str) -> Project {
    let takes = format!("summary = 'x'\n[[step]]\nname = 'it takes its time'\nhost = 'sleep {seconds}'\n");
    Project::new(&[("config/takes", &takes), ("performance/regression", REGRESSION)])
}

#[test]
fn what_is_above_the_band_of_earlier_runs_is_a_warning() {
    let quick = project("0");
    quick
        .hermetic(&["run"])
        .check(0, &["SUCCESS: 1 passed, 1 skipped", "1 ignored", "no earlier transcripts were named in RAVE_BASELINE"]);
    let earlier = quick.artifact(".json");
    let slow = || project("2").set("RAVE_BASELINE", &earlier);
    let (first, second) = (slow(), slow().set("RAVE_BASELINE", quick.path("artifacts")));
    for project in [&first, &second] {
        project.hermetic(&["run"]).check(
            0,
            &[
                "warning: ",
                "step `no value is above the band of the earlier runs`: stdout does not match",
                "config::takes: it takes its time: ",
                "WARNING: 1 passed, 1 warned",
            ],
        );
        project.hermetic(&["verify", project.artifact(".json").to_str().unwrap()]).check(0, &["verified: WARNING"]);
    }
    // As slow as before is in the band.
    let again = project("2").set("RAVE_BASELINE", first.artifact(".json"));
    again.hermetic(&["run"]).check(0, &["SUCCESS: 2 passed"]);
    again.hermetic(&["sabotage", "regression"]).check(0, &["of 1 steps 1 were seen to fail"]);
}

#[test]
fn a_baseline_that_is_none_is_refused_and_an_empty_folder_is_no_baseline_yet() {
    let with = |path: &std::path::Path| project("0").set("RAVE_BASELINE", path);
    let earlier = project("0");
    with(&earlier.path("none"))
        .hermetic(&["run"])
        .check(2, &["none: is neither a transcript nor a folder of transcripts"]);
    std::fs::create_dir(earlier.path("empty")).unwrap();
    with(&earlier.path("empty")).hermetic(&["run"]).check(0, &["RAVE_BASELINE names, holds no transcript yet"]);
    earlier.hermetic(&["run"]).check(0, &[]);
    let transcript = earlier.artifact(".json");
    let text = std::fs::read_to_string(&transcript).unwrap();
    std::fs::write(&transcript, text.replace("\"passed\":1", "\"passed\":2")).unwrap();
    for path in [&transcript, &earlier.path("artifacts")] {
        let project = with(path);
        project.hermetic(&["run"]).check(1, &["RAVE_BASELINE: `", "is not taken: ", "does not verify"]);
        assert!(!project.path("artifacts").exists());
    }
}
