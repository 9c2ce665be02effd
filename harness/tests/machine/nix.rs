//! The whole way with an image that Nix hands out: `nix build`, boot, scenarios, transcript.

use std::fs;
use std::path::Path;

use crate::microguest::microguest;
use crate::support::Project;

const ANSWERS: &str = r#"
summary = "The guest that Nix handed out answers"
needs   = ["ssh"]
timeout = "120s"

[[step]]
name   = "over SSH"
run    = "echo $((20 + 22))"
stdout = { equals = 42 }

[[step]]
name    = "it is Nix's"
measure = "image.provider"
value   = { equals = "nix" }

[[step]]
name   = "from Nix's store, where nobody writes"
host   = "stat --format %A '{{image.disk}}'"
stdout = { not_contains = "w" }
"#;

#[test]
fn an_image_that_nix_builds_is_booted_asked_and_recorded() {
    let project = Project::new(&[("boot/answers", ANSWERS)]);
    let flake = project.path("handout");
    fs::create_dir(&flake).unwrap();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flakes/handout/flake.nix");
    fs::copy(recipe, flake.join("flake.nix")).unwrap();
    fs::write(flake.join("folder"), microguest().folder().to_str().unwrap()).unwrap();
    fs::create_dir(project.path("tmp")).unwrap();
    let tmp = project.path("tmp");
    let project = project.set("RAVE_IMAGE", "nix:./handout").set("RAVE_ACCEL", "tcg").set("TMPDIR", tmp).with_nix();
    // The image's own file names the command line; `ok` is what the microguest does by default.
    let ran = project.hermetic(&["run"]);
    ran.check(
        0,
        &["handed-out-image> handing out ", "(nix), sha256:", "test boot::answers ... ok", "SUCCESS: 1 passed"],
    );
    let transcript = project.transcript();
    assert_eq!(transcript["rave_version"], "microguest");
    let image = &transcript["image"];
    assert_eq!((&image["provider"], &image["unchanged_after_run"]), (&"nix".into(), &true.into()));
    assert!(image["store_path"].as_str().unwrap().ends_with("-handed-out-image"), "{image:#}");
    assert!(image["derivation"].as_str().unwrap().ends_with("-handed-out-image.drv"), "{image:#}");
    assert_eq!(image["files"].as_array().unwrap().len(), 4, "{image:#}");
    let path = project.artifact(".json");
    project.hermetic(&["verify", path.to_str().unwrap()]).check(0, &["verified: SUCCESS"]);
}
