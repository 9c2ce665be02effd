//! What is made of a transcript, held against what others wrote: JSON Schema, JUnit's schema, in-toto's own libraries, OpenSSL.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::forgeries::{examples, transcripts};
use crate::support::{Project, Ran};

const PASSES: &str = "summary = 'It passes'\n[[step]]\nname = 'x'\nhost = 'echo \"<&\"'\n";
const WARNS: &str =
    "summary = 'It warns'\n[[step]]\nname = 'x'\nlevel = 'warn'\nhost = 'echo 1'\nstdout = { at_least = 2 }\n";
const FAILS: &str = "summary = 'It fails'\n[[step]]\nname = 'x'\nhost = 'printf \"\\\\033[31m]]>\\\\0\"; exit 3'\n";
const SKIPS: &str = "summary = 'x'\n[[step]]\nname = 'not now'\nskip = { reason = 'waits', until = '2999-01-01', tracker = 'T7' }\nhost = 'x'\n";
const HANGS: &str = "summary = 'x'\ntimeout = '1s'\n[[step]]\nname = 'x'\nhost = 'sleep 1000'\n";

/// A run with one of each outcome.
fn mixed() -> Project {
    let project = Project::new(&[
        ("config/errors", HANGS),
        ("config/fails", FAILS),
        ("config/passes", PASSES),
        ("config/skips", SKIPS),
        ("config/warns", WARNS),
    ]);
    project.hermetic(&["run"]).check(101, &["1 passed, 1 warned, 1 failed, 1 errored, 1 skipped"]);
    project
}

fn hermetic(arguments: &[&str]) -> Ran {
    Ran::from(Command::new(env!("CARGO_BIN_EXE_hermetic")).args(arguments).output().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn real_transcripts_of_every_version_verify_and_follow_the_schema() {
    let schema: Value =
        serde_json::from_slice(&std::fs::read(transcripts().join("../transcript.schema.json")).unwrap()).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let mut documents = vec![mixed().transcript()];
    let mut versions = Vec::new();
    for path in examples() {
        let key = path.with_extension("pub");
        hermetic(&["verify", text(&path), "--key", text(&key)]).check(0, &["verified: "]);
        let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        versions.push(document["schema"].as_u64().unwrap());
        documents.push(document);
    }
    let all: Vec<u64> = rave_hermetic::transcript::verify::READABLE.collect();
    assert_eq!(versions, all, "harness/transcripts/ has one real transcript of each version that is read");
    for document in &documents {
        let errors: Vec<_> = validator.iter_errors(document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    let mut wrong = documents.remove(0);
    wrong["validation_results"][0]["outcome"] = "perhaps".into();
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn verify_is_a_gate() {
    let example = examples().pop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let key = example.with_extension("pub");
    let good = write(
        "good.toml",
        &format!("keys = ['{}']\nfiltered = true\nrequired = ['boot', 'health::nginx']\n", text(&key)),
    );
    hermetic(&["verify", text(&example), "--policy", text(&good)]).check(0, &["verified: SUCCESS"]);
    let strict = write("strict.toml", "rave_version = 'P6-production'\nproviders = ['nix']\nrequired = ['oidc']\n");
    let expected = [
        "anybody could have signed it",
        "must be `P6-production`",
        "must be nix",
        "the run was filtered",
        "`oidc` is required",
        "genuine, and not accepted: SUCCESS",
    ];
    hermetic(&["verify", text(&example), "--policy", text(&strict)]).check(3, &expected);

    let ran = hermetic(&["verify", text(&example), "--policy", text(&strict), "--json"]);
    ran.check(3, &[]);
    let verdict: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(verdict["verdict"], "refused");
    assert_eq!(verdict["reasons"].as_array().unwrap().len(), 5, "{verdict}");
    assert_eq!(verdict["reasons"][0]["check"], "policy");
    assert_eq!(verdict["says"]["accelerator"], "tcg");
    assert_eq!(verdict["trust"], "from_transcript");

    let wrong = write("wrong.toml", "dirty = true\nrequired = ['bot']\noldest = 'soon'\n");
    let ran = hermetic(&["verify", text(&example), "--policy", text(&wrong), "--json"]);
    ran.check(1, &["could_not_check", "wrong.toml:2: `bot` is not", "wrong.toml:3: `oldest` must be"]);

    let disk = write("disk.qcow2", "another disk");
    hermetic(&["verify", text(&example), "--image", text(&disk)])
        .check(3, &["the image given is sha256:", "is about sha256:3d9c"]);
    let none = folder.path().join("none");
    hermetic(&["verify", text(&example), "--image", text(&none)]).check(1, &["could not read"]);
}

#[test]
fn the_image_is_held_against_its_transcript() {
    let needs_image = "summary = 'x'\n[[step]]\nname = 'x'\nmeasure = 'image.format'\nvalue = { equals = 'qcow2' }\n";
    let project = Project::new(&[("image/format", needs_image)]);
    let image = project.path("image");
    std::fs::create_dir(&image).unwrap();
    let disk = image.join("disk.qcow2");
    let mut create = Command::new("qemu-img");
    assert!(create.args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("4M").status().expect("qemu-img").success());
    let project = project.set("RAVE_IMAGE", &disk);
    project.hermetic(&["run"]).check(0, &["1 passed"]);
    let transcript = project.artifact(".json");
    let verify = |image: &Path| project.hermetic(&["verify", text(&transcript), "--image", text(image)]);
    verify(&disk).check(0, &["verified"]);
    // As a build leaves it, in a Nix store path for example.
    let manifest = r#"{"schema":1,"name":"x","version":"1","disk":"disk.qcow2","disk_format":"qcow2"}"#;
    std::fs::write(image.join("image.json"), manifest).unwrap();
    verify(&image).check(0, &["verified"]);
    std::fs::write(&disk, "changed").unwrap();
    verify(&disk).check(3, &["the image given is"]);
}

/// Written down from what the tools document; `xmllint` is of the package libxml2-utils.
#[test]
fn junit_is_what_the_tools_that_show_it_read() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/junit.xsd");
    let project = mixed();
    let folder = tempfile::tempdir().unwrap();
    let mut files = vec![project.artifact(".junit.xml")];
    for example in examples() {
        let file = folder.path().join("junit.xml");
        hermetic(&["report", text(&example), "--junit", text(&file)]).check(0, &[]);
        files.push(file);
    }
    for file in files {
        let output = Command::new("xmllint").args(["--noout", "--schema"]).arg(&schema).arg(&file).output();
        let output = output.expect("xmllint (package libxml2-utils)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let xml = std::fs::read_to_string(project.artifact(".junit.xml")).unwrap();
    for expected in
        ["warns (warned)", r#"<skipped message="waits, until 2999-01-01 (T7)"/>"#, "<error ", "<failure ", "warning: "]
    {
        assert!(xml.contains(expected), "{expected} is not in\n{xml}");
    }
}

#[test]
fn every_run_leaves_a_page_to_look_at() {
    let project = mixed();
    let page = std::fs::read_to_string(project.artifact(".html")).unwrap();
    for expected in ["✗ FAILED", "config::fails", "did not end within", "waits, until 2999-01-01 (T7)", "equals 0"] {
        assert!(page.contains(expected), "{expected} is not in\n{page}");
    }
    assert!(!page.contains("<script") && !page.contains("src=\"http") && !page.contains("@import"));
    let other = Project::new(&[("config/fails", &FAILS.replace("exit 3", "exit 0")), ("config/passes", PASSES)]);
    other.hermetic(&["run"]).check(0, &[]);
    let (transcript, page) = (other.artifact(".json"), other.path("page.html"));
    let before = project.artifact(".json");
    hermetic(&["report", text(&transcript), "--html", text(&page), "--against", text(&before)]).check(0, &[]);
    let page = std::fs::read_to_string(page).unwrap();
    for expected in ["<td>config::fails</td><td>failed</td><td><b class=\"passed\">passed</b></td>", "not there"] {
        assert!(page.contains(expected), "{expected} is not in\n{page}");
    }
}

/// In a real browser, where there is one: nothing reaches over the edge of a small screen or a wide one, and the verdict is what one sees
/// first. What it looks like, people looked at.
#[test]
fn the_page_fits_the_screen() {
    const MEASURE: &str = r#"<body><iframe id=page src=page.html style="border:0;height:900px;width:WIDTHpx"></iframe><script>
        document.getElementById("page").onload = ({ target: { contentDocument: page } }) => {
            const first = page.querySelector("h1");
            const over = page.documentElement.scrollWidth - page.documentElement.clientWidth;
            document.body.innerText = `${over} over the edge; ${first.innerText}${first.getBoundingClientRect().top < 100 ? ", on top" : ""}`;
        }</script>"#;
    if Command::new("chromium").arg("--version").output().is_err() {
        return eprintln!("not asked: chromium is not installed here");
    }
    let folder = tempfile::tempdir().unwrap();
    let (page, around) = (folder.path().join("page.html"), folder.path().join("around.html"));
    hermetic(&["report", text(&examples().pop().unwrap()), "--html", text(&page)]).check(0, &[]);
    for width in ["320", "1200"] {
        std::fs::write(&around, MEASURE.replace("WIDTH", width)).unwrap();
        let mut chromium = Command::new("chromium");
        chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]);
        chromium.arg(format!("--user-data-dir={}", text(folder.path()))).arg(format!("file://{}", text(&around)));
        let output = chromium.output().unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            seen.contains(">0 over the edge; ✓ SUCCESS, on top<"),
            "{seen}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn transcripts_are_compared_and_what_leaves_the_band_fails() {
    let run = |seconds: &str| {
        let scenario = format!("summary = 'x'\n[[step]]\nname = 'it takes its time'\nhost = 'sleep {seconds}'\n");
        let project = Project::new(&[("config/passes", &scenario)]);
        project.hermetic(&["run"]).check(0, &[]);
        project
    };
    let (quick, slow) = (run("0"), run("1.5"));
    let (quick, slow) = (quick.artifact(".json"), slow.artifact(".json"));
    let row = "ABOVE config::passes: it takes its time";
    hermetic(&["compare", text(&quick), text(&quick), text(&slow)]).check(101, &[row, "1 above the band of 30 %"]);
    hermetic(&["compare", text(&slow), text(&quick)]).check(0, &["below config::passes"]);
    hermetic(&["compare", text(&quick), text(&slow), "--floor-ms", "600000"]).check(0, &["0 above the band"]);
    let ran = hermetic(&["compare", text(&quick), text(&slow), "--json"]);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&found["rows"][0]["place"], &found["rows"][0]["unit"]), (&"above".into(), &"ms".into()));
    let example = examples().pop().unwrap();
    hermetic(&["compare", text(&quick), text(&example)])
        .check(1, &["cannot be compared: the accelerator is none in one and tcg"]);
    hermetic(&["compare", text(&quick)]).check(2, &[]);
}

/// Two verifiers that nobody here wrote: OpenSSL for the signature, and in-toto's and DSSE's own Python packages.
#[test]
fn in_toto_is_verified_by_others() {
    let project = Project::new(&[]);
    std::fs::write(project.path("password"), "correct horse\n").unwrap();
    project.hermetic(&["keygen", "plain.key"]).check(0, &[]);
    project.hermetic(&["keygen", "locked.key", "--password-file", "password"]).check(0, &[]);
    let example = examples().pop().unwrap();
    let arguments = ["export", "--in-toto", text(&example), "--out", "envelope.json", "--public-pem", "key.pem"];
    project.hermetic(&arguments).check(1, &["an attestation needs a key of your own"]);
    let python = python();
    for (key, password) in [("plain.key", None), ("locked.key", Some("password"))] {
        let mut command = project.command(&arguments);
        command.env("RAVE_SIGNING_KEY", key);
        password.map(|password| command.env("RAVE_SIGNING_KEY_PASSWORD_FILE", password));
        Ran::from(command.output().unwrap()).check(0, &[]);
        with_openssl(&project);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify_in_toto.py");
        let run = || {
            Command::new(&python).arg(&script).args([project.path("envelope.json"), project.path("key.pem")]).output()
        };
        Ran::from(run().unwrap())
            .check(0, &["PASSED", "disk.qcow2", "3d9c7b0d3b9cc3681b947d0bf936c08e570adb99187fb698997841263fdb1421"]);
        let text = std::fs::read_to_string(project.path("envelope.json")).unwrap();
        std::fs::write(project.path("envelope.json"), text.replacen("eyJ", "eyK", 1)).unwrap();
        assert_ne!(Ran::from(run().unwrap()).code, Some(0));
    }
}

fn with_openssl(project: &Project) {
    use base64::Engine as _;
    let decode = |text: &Value| base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    let envelope: Value = serde_json::from_slice(&std::fs::read(project.path("envelope.json")).unwrap()).unwrap();
    let (payload, kind) = (decode(&envelope["payload"]), envelope["payloadType"].as_str().unwrap());
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    std::fs::write(project.path("pae"), [head.as_bytes(), &payload].concat()).unwrap();
    std::fs::write(project.path("sig"), decode(&envelope["signatures"][0]["sig"])).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["pkeyutl", "-verify", "-pubin", "-inkey"]).arg(project.path("key.pem"));
    openssl.args(["-rawin", "-in"]).arg(project.path("pae")).arg("-sigfile").arg(project.path("sig"));
    Ran::from(openssl.output().expect("openssl")).check(0, &["Signature Verified Successfully"]);
}

/// A Python with these packages, made once.
fn python() -> PathBuf {
    const PACKAGES: [&str; 2] = ["securesystemslib[crypto]==1.6.0", "in-toto-attestation==0.9.3"];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("in-toto-verifiers");
    let (python, done) = (folder.join("bin/python"), folder.join("done"));
    if std::fs::read_to_string(&done).is_ok_and(|found| found == PACKAGES.concat()) {
        return python;
    }
    let run = |command: &mut Command| Ran::from(command.output().expect("python3")).check(0, &[]);
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES));
    std::fs::write(&done, PACKAGES.concat()).unwrap();
    python
}

/// The bound is far above what is meant (50 ms, `README.md` has the numbers): it catches what would be slow on any machine.
#[test]
fn verifying_takes_no_time_to_speak_of() {
    let example = examples().pop().unwrap();
    let started = Instant::now();
    hermetic(&["verify", text(&example)]).check(0, &[]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
