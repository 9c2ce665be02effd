//! Transcripts that somebody changed: every one of them is refused, for the reason that is wrong with it, and without a panic.
//! `forgeries.md` beside the tests is the table; `FORGERIES=write cargo test --test it forgeries` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use minisign::PublicKey;
use rave_hermetic::report;
use rave_hermetic::transcript::model::Transcript;
use rave_hermetic::transcript::sign::{self, SigningKey};
use rave_hermetic::transcript::{canonical, verify};
use serde_json::{Value, json};

/// A transcript as it lies on disk.
#[derive(Clone)]
struct Signed {
    json: Vec<u8>,
    minisig: String,
    key: PublicKey,
}

/// The folder of real transcripts.
pub fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts")
}

/// The real transcripts that lie in the repository, a version of the format each.
pub fn examples() -> Vec<PathBuf> {
    let folders =
        std::fs::read_dir(transcripts()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let mut found: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn example() -> Signed {
    let path = examples().pop().unwrap();
    let read = |end: &str| std::fs::read_to_string(path.with_extension(end)).unwrap();
    let key = verify::public_key(&read("pub")).unwrap();
    Signed { json: std::fs::read(&path).unwrap(), minisig: read("json.minisig"), key }
}

/// Signs a document as this program would, whatever is in it: what somebody can do who has a key and is not trusted.
fn forge(mut document: Value, key: &SigningKey) -> Signed {
    document["signing_key"]["public_key"] = key.public_base64().into();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or("none").to_owned();
    let comment = format!(
        "session:{} image:{} status:{}",
        text(&document, "test_session_id"),
        text(&document, "image_digest"),
        text(&document, "overall_status")
    );
    document.as_object_mut().unwrap().remove("signature");
    let inside = key.sign(&serde_json_canonicalizer::to_vec(&document).unwrap(), &comment).unwrap();
    document["signature"] = inside.into();
    let json = serde_json_canonicalizer::to_vec(&document).unwrap();
    let minisig = key.sign(&json, &comment).unwrap();
    Signed { json, minisig, key: verify::public_key(&key.public_base64()).unwrap() }
}

fn reasons(signed: &Signed, key: Option<&PublicKey>) -> String {
    match verify::verify(&signed.json, &signed.minisig, key) {
        Ok(_) => "VERIFIED".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

/// The table of forgeries: what was changed, and why it is refused.
#[derive(Default)]
struct Table(Vec<(String, String)>);

impl Table {
    /// Refused by whoever has the key and by whoever has not.
    fn add(&mut self, what: &str, forged: &Signed, genuine: &PublicKey) {
        let with_key = reasons(forged, Some(genuine));
        let without = reasons(forged, None);
        assert_ne!(with_key, "VERIFIED", "{what}");
        assert_ne!(without, "VERIFIED", "{what}, without a key");
        self.0.push((what.to_owned(), without));
    }

    /// Signed anew by somebody else: only the key tells, and what the document says against itself.
    fn add_signed(&mut self, what: &str, forged: &Signed, genuine: &PublicKey) {
        let with_key = reasons(forged, Some(genuine));
        assert!(with_key.contains("different from public key"), "{what}: {with_key}");
        let without = reasons(forged, None);
        assert_ne!(without, "VERIFIED", "{what}");
        self.0.push((format!("{what}; signed anew"), without));
    }

    fn text(&self) -> String {
        let numbers = regex::Regex::new(r"[0-9A-F]{16}").unwrap();
        let mut text = String::from(
            "Made by `harness/tests/it/forgeries.rs`, which forges these from the newest real transcript in `harness/transcripts/`.\n\
             The reason is that of `hermetic verify` without `--key`. With the key of whoever ran it, each is refused for its signature alone,\n\
             before anything in it is parsed; so it is where the forger signs anew with a key of their own.\n\n\
             | what was changed | why it is refused |\n|---|---|\n",
        );
        for (what, reason) in &self.0 {
            let reason = numbers.replace_all(reason, "…").replace('|', "\\|");
            let reason: String =
                if reason.chars().count() > 300 { reason.chars().take(299).chain(['…']).collect() } else { reason };
            let _ = writeln!(text, "| {what} | {reason} |");
        }
        text
    }
}

#[test]
fn every_forgery_is_refused_for_its_reason() {
    let genuine = example();
    assert_ne!(reasons(&genuine, Some(&genuine.key)), "");
    assert_eq!(reasons(&genuine, Some(&genuine.key)), "VERIFIED");
    let mut table = Table::default();
    bytes(&genuine, &mut table);
    signatures(&genuine, &mut table);
    signed_anew(&genuine, &mut table);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forgeries.md");
    if std::env::var_os("FORGERIES").is_some() {
        std::fs::write(&path, table.text()).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == table.text(), "FORGERIES=write cargo test --test it forgeries; it would be\n{}", table.text());
}

/// Bytes changed, and nothing signed again.
fn bytes(genuine: &Signed, table: &mut Table) {
    let text = String::from_utf8(genuine.json.clone()).unwrap();
    let mut add = |what: &str, json: Vec<u8>| {
        assert_ne!(json, genuine.json, "{what} changes nothing");
        table.add(what, &Signed { json, ..genuine.clone() }, &genuine.key);
    };
    add("nothing is left", Vec::new());
    add("the last byte is missing", genuine.json[..genuine.json.len() - 1].to_vec());
    add("the second half is missing", genuine.json[..genuine.json.len() / 2].to_vec());
    add("a final newline", format!("{text}\n").into_bytes());
    add("a byte-order mark", [b"\xef\xbb\xbf", genuine.json.as_slice()].concat());
    add("a space after the first brace", text.replacen('{', "{ ", 1).into_bytes());
    add("pretty-printed", serde_json::to_vec_pretty(&value(genuine)).unwrap());
    add("fields in another order", reordered(&value(genuine)).into_bytes());
    add("a field is there twice", text.replacen('{', r#"{"schema":2,"#, 1).into_bytes());
    add("a field that nobody knows", text.replacen('{', r#"{"extra":true,"#, 1).into_bytes());
    add("a field is missing", without(&value(genuine), "reasons"));
    add("a number as a fraction", text.replacen(r#""schema":2"#, r#""schema":2.0"#, 1).into_bytes());
    add("another version", text.replacen(r#""schema":2"#, r#""schema":999"#, 1).into_bytes());
    add("a letter as an escape", text.replacen("SUCCESS", "\\u0053UCCESS", 1).into_bytes());
    add("not UTF-8", [&genuine.json[..100], b"\xff", &genuine.json[101..]].concat());
    add("a hundred thousand brackets", "[".repeat(100_000).into_bytes());
    add("a document of objects, a thousand deep", (r#"{"image":"#.repeat(1000)).into_bytes());
    add("two transcripts in one file", [genuine.json.clone(), genuine.json.clone()].concat());
    add("an older version", text.replacen(r#""schema":2"#, r#""schema":1"#, 1).into_bytes());
    let passed = |count: u64| format!(r#""passed":{count}"#);
    let count = value(genuine)["test_summary"]["passed"].as_u64().unwrap();
    add("an edited summary", text.replacen(&passed(count), &passed(count + 1), 1).into_bytes());
    add("a result that is dropped", changed(genuine, |document| drop(list(document, "security_validation").pop())));
    add(
        "another verdict",
        text.replacen(r#""overall_status":"SUCCESS""#, r#""overall_status":"WARNING""#, 1).into_bytes(),
    );
}

/// Another signature, or the same one changed.
fn signatures(genuine: &Signed, table: &mut Table) {
    let other = SigningKey::ephemeral().unwrap();
    let minisig = |what: &str, minisig: String, table: &mut Table| {
        assert_ne!(minisig, genuine.minisig, "{what} changes nothing");
        table.add(what, &Signed { minisig, ..genuine.clone() }, &genuine.key);
    };
    minisig("the signature of another file", other.sign(b"another file", "x").unwrap(), table);
    let comment = genuine.minisig.lines().nth(2).unwrap().trim_start_matches("trusted comment: ").to_owned();
    minisig("the signature of another key", other.sign(&genuine.json, &comment).unwrap(), table);
    minisig("an edited trusted comment", genuine.minisig.replace("status:SUCCESS", "status:WARNING"), table);
    minisig("an edited untrusted comment", genuine.minisig.replacen("rave-hermetic", "release", 1), table);
    minisig("the signature as minisign's older format", genuine.minisig.replacen("\nRU", "\nRW", 1), table);
    minisig("a line after the signature", format!("{}x\n", genuine.minisig), table);
    minisig("lines that end as on Windows", genuine.minisig.replace('\n', "\r\n"), table);
    minisig("a signature that is cut off", genuine.minisig[..genuine.minisig.len() / 2].to_owned(), table);
    minisig("an empty signature", String::new(), table);
    minisig("a signature of a million letters", "A".repeat(1_000_000), table);
    let inside = value(genuine)["signature"].as_str().unwrap().to_owned();
    minisig("the signature inside, put beside it", inside, table);
}

/// Changed and signed again throughout, by somebody with a key of their own: what the document says must still follow from itself.
fn signed_anew(genuine: &Signed, table: &mut Table) {
    let key = SigningKey::ephemeral().unwrap();
    let mut add = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut document = value(genuine);
        change(&mut document);
        table.add_signed(what, &forge(document, &key), &genuine.key);
    };
    add("a result that is dropped", &|document| drop(list(document, "security_validation").pop()));
    add("a result of another run is added, as a second one", &|document| {
        let copy = list(document, "service_health")[0].clone();
        list(document, "service_health").push(copy);
        for count in ["total_tests", "passed"] {
            document["test_summary"][count] = (document["test_summary"][count].as_u64().unwrap() + 1).into();
        }
    });
    add("a result in another list", &|document| {
        let moved = list(document, "service_health").remove(0);
        list(document, "authentication_tests").push(moved);
    });
    add("a summary that is too good", &|document| document["test_summary"]["passed"] = 99.into());
    add("SUCCESS for a run that failed", &|document| {
        document["service_health"][0]["outcome"] = "failed".into();
        document["test_summary"]["failed"] = 1.into();
        document["test_summary"]["passed"] = (document["test_summary"]["passed"].as_u64().unwrap() - 1).into();
    });
    add("a failed step under a scenario that passed", &|document| {
        document["service_health"][0]["steps"][0]["outcome"] = "failed".into();
    });
    add("a step that passed without an answer", &|document| {
        document["service_health"][0]["steps"][0]["answer"] = Value::Null;
    });
    add("a step that passed and expected nothing", &|document| {
        document["service_health"][0]["steps"][0]["expectations"] = json!([]);
    });
    add("an answer that was edited", &|document| {
        document["service_health"][0]["steps"][0]["answer"]["streams"]["stderr"]["excerpt"] = "all is well".into();
    });
    add("a machine of another run", &|document| document["machine"]["ready_ms"] = Value::Null);
    add("no machine, and answers of a guest", &|document| document["machine"] = Value::Null);
    add("a fork of another machine", &|document| {
        document["service_health"][0]["fork"]["of"] = "spinup-20200101-000000".into();
    });
    add("a fork of which nothing is told", &|document| {
        document["service_health"][0].as_object_mut().unwrap().remove("fork").unwrap();
    });
    add("two forks with the same random numbers", &|document| {
        document["service_health"][0]["fork"]["random"] = document["security_validation"][0]["fork"]["random"].clone();
    });
    add("an older version with what only a newer one has", &|document| document["schema"] = 1.into());
    add("a production guest", &|document| document["rave_version"] = "P6-production".into());
    add("another guest, made of a reference image", &|document| {
        document["rave_version"] = "P6-production".into();
        document["profile"]["name"] = "P6-production".into();
        document["image"]["provider"] = "reference".into();
    });
    add("a production guest with a stand-in", &|document| {
        document["rave_version"] = "P6-production".into();
        document["profile"]["name"] = "P6-production".into();
        document["profile"]["capabilities"]["nginx"]["stand_in"] = true.into();
    });
    add("a stand-in that is hushed up", &|document| {
        document["profile"]["capabilities"]["nginx"]["stand_in"] = true.into();
    });
    add("the digest of another image", &|document| {
        document["image_digest"] = format!("sha256:{}", "0".repeat(64)).into()
    });
    add("a digest that is none", &|document| {
        document["image_digest"] = "sha256:0".into();
        document["image"]["files"][0]["digest"] = "sha256:0".into();
    });
    add("an image that changed during the run", &|document| document["image"]["unchanged_after_run"] = false.into());
    add("a machine that was lost", &|document| document["machine"]["failure"] = "the guest panicked".into());
    add("the times of another run", &|document| document["duration_seconds"] = 3.into());
    add("a time that is none", &|document| document["start_time"] = "yesterday".into());
    add("the name of another session", &|document| document["test_session_id"] = "spinup-20200101-000000".into());
    add("a result from after the end", &|document| document["service_health"][0]["started_ms"] = 9_000_000.into());
    add("ABORTED without a reason", &|document| document["overall_status"] = "ABORTED".into());
    add("no results at all", &|document| {
        for list in ["validation_results", "service_health", "performance_metrics", "security_validation"] {
            document[list] = json!([]);
        }
        document["test_summary"] =
            json!({ "total_tests": 0, "passed": 0, "failed": 0, "warned": 0, "errored": 0, "skipped": 0 });
    });
    add("several things at once", &|document| {
        document["duration_seconds"] = 3.into();
        document["test_summary"]["passed"] = 99.into();
        document["image"]["unchanged_after_run"] = false.into();
    });
    let spliced = || {
        let mut document = value(genuine);
        document["profile"]["capabilities"]["nginx"]["implementation"] = "nginx 0.1".into();
        document
    };
    table.add_signed("two runs spliced: results of one, guest of the other", &forge(spliced(), &key), &genuine.key);
    // The inner signature is of the document as it was, the outer one of the file as it is.
    let mut document = value(genuine);
    document["signing_key"]["public_key"] = key.public_base64().into();
    let json = serde_json_canonicalizer::to_vec(&document).unwrap();
    let comment = genuine.minisig.lines().nth(2).unwrap().trim_start_matches("trusted comment: ");
    let minisig = key.sign(&json, comment).unwrap();
    let own = verify::public_key(&key.public_base64()).unwrap();
    table.add_signed("another key named, and only the file signed", &Signed { json, minisig, key: own }, &genuine.key);
}

#[test]
fn no_byte_of_a_real_transcript_or_its_signature_can_be_changed() {
    let genuine = example();
    let length = genuine.json.len();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // Every byte, and over all of them every bit; the whole digest is made anew for each.
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let genuine = &genuine;
            scope.spawn(move || {
                let mut json = genuine.json.clone();
                for position in (worker..length).step_by(workers) {
                    json[position] ^= 1 << (position % 8);
                    let refused = verify::verify(&json, &genuine.minisig, Some(&genuine.key));
                    assert!(refused.is_err(), "byte {position}");
                    json[position] = genuine.json[position];
                }
            });
        }
    });
    for position in 0..genuine.minisig.len() {
        for bit in 0..8 {
            let mut minisig = genuine.minisig.clone().into_bytes();
            minisig[position] ^= 1 << bit;
            let minisig = String::from_utf8_lossy(&minisig).into_owned();
            assert!(
                verify::verify(&genuine.json, &minisig, Some(&genuine.key)).is_err(),
                "bit {bit} of byte {position}"
            );
            assert!(verify::verify(&genuine.json, &minisig, None).is_err(), "bit {bit} of byte {position}, own key");
        }
    }
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("boot_transcript.json");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(verify::LARGEST + 1).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hermetic")).arg("verify").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("more than the 268435456 that are read"), "{said}");
}

/// Random changes of bytes and of structure. `FUZZ_INPUTS` says how many (a million take minutes), `FUZZ_SEED` which.
#[test]
fn mutants_are_refused_and_nothing_panics() {
    let number = |name: &str, default: u64| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let (inputs, seed) = (number("FUZZ_INPUTS", 5_000), number("FUZZ_SEED", 1));
    let genuine = small(&example());
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let (consistent, parsed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (genuine, consistent, parsed) = (&genuine, &consistent, &parsed);
            scope.spawn(move || {
                for input in (worker..inputs).step_by(usize::try_from(workers).unwrap()) {
                    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(input));
                    let mutant = mutant(genuine, &mut random);
                    if mutant == genuine.0.json {
                        continue;
                    }
                    let refused = verify::verify(&mutant, &genuine.0.minisig, Some(&genuine.0.key));
                    assert!(refused.is_err(), "input {input} of seed {seed} verifies");
                    // What a signer who is nobody's friend could make a verifier look at.
                    match verify::document(&mutant) {
                        Ok(transcript) => {
                            consistent.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(canonical::of(&transcript).unwrap(), mutant, "input {input} of seed {seed}");
                            reports(&transcript);
                        }
                        Err(refusal) => {
                            let schema = refusal.0.iter().any(|reason| reason.check == verify::Check::Schema);
                            parsed.fetch_add(u64::from(!schema), Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    println!(
        "{inputs} mutants of seed {seed}: {parsed:?} were transcripts that contradict themselves, {consistent:?} did not"
    );
    assert!(inputs < 1000 || (parsed.into_inner() > 0 && consistent.into_inner() > 0));
}

/// No report falls over a document that is consistent.
fn reports(transcript: &Transcript) {
    let session = report::session::Session::default();
    let comparison = report::compare::compare(&[transcript], transcript, report::compare::Band::default());
    let against = Some(&comparison);
    report::html::html(&report::html::Page { transcript, file_name: "x", session: &session, against }).unwrap();
    report::junit(transcript).unwrap();
    report::text::summary(transcript);
    report::in_toto::statement(transcript, "x", "0");
}

/// A real transcript with fewer results, signed anew: small, so that many mutants of it can be looked at.
fn small(genuine: &Signed) -> (Signed, Value) {
    let mut document = value(genuine);
    document["machine"]["arguments"] = json!(["qemu-system-x86_64"]);
    document["performance_metrics"] = json!([]);
    document["security_validation"] = json!([]);
    list(&mut document, "validation_results").retain(|record| record["name"] == "boot::ready");
    list(&mut document, "service_health")[0]["steps"].as_array_mut().unwrap().truncate(2);
    document["test_summary"] =
        json!({ "total_tests": 2, "passed": 2, "failed": 0, "warned": 0, "errored": 0, "skipped": 0 });
    let signed = forge(document, &SigningKey::ephemeral().unwrap());
    assert_eq!(reasons(&signed, Some(&signed.key)), "VERIFIED");
    let document = value(&signed);
    (signed, document)
}

fn mutant((signed, document): &(Signed, Value), random: &mut Random) -> Vec<u8> {
    if random.below(2) == 0 {
        let mut document = document.clone();
        for _ in 0..=random.below(3) {
            mutate_value(&mut document, random);
        }
        return serde_json_canonicalizer::to_vec(&document).unwrap();
    }
    let mut json = signed.json.clone();
    for _ in 0..=random.below(4) {
        mutate_bytes(&mut json, random);
    }
    json
}

fn mutate_bytes(json: &mut Vec<u8>, random: &mut Random) {
    const WORDS: [&[u8]; 12] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"null",
        b"-1",
        b"1e400",
        b"18446744073709551616",
        b"\\ud800",
        b"\xff\xfe",
        b"\"schema\":1,",
    ];
    let length = json.len().max(1);
    let (at, span) = (random.below(length), random.below(64));
    let end = (at + span).min(json.len());
    match random.below(6) {
        0 if !json.is_empty() => json[at] ^= 1 << random.below(8),
        1 => drop(json.drain(at.min(end)..end)),
        2 => {
            let copy = json[at.min(end)..end].to_vec();
            let to = random.below(length).min(json.len());
            json.splice(to..to, copy);
        }
        3 => {
            let to = at.min(json.len());
            json.splice(to..to, WORDS[random.below(WORDS.len())].iter().copied());
        }
        4 => json.truncate(at),
        _ if !json.is_empty() => json[at] = u8::try_from(random.below(256)).unwrap(),
        _ => {}
    }
}

/// Changes one value somewhere in a document: takes it away, doubles it, or puts another in its place.
fn mutate_value(value: &mut Value, random: &mut Random) {
    let deeper = random.below(8) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(random.below(fields.len())).unwrap().clone();
            match random.below(16) {
                _ if deeper => mutate_value(&mut fields[&name], random),
                0..8 => drop(fields.remove(&name)),
                _ => drop(fields.insert(format!("{name}_"), Value::Null)),
            }
        }
        Value::Array(values) if !values.is_empty() => {
            let at = random.below(values.len());
            match random.below(16) {
                _ if deeper => mutate_value(&mut values[at], random),
                0..8 => drop(values.remove(at)),
                _ => values.push(values[at].clone()),
            }
        }
        Value::Number(_) => *value = [0, 1, 2, 1 << 53, u64::MAX][random.below(5)].into(),
        Value::Bool(set) => *set = !*set,
        Value::String(text) => {
            const TEXTS: [&str; 11] = [
                "",
                "passed",
                "failed",
                "skipped",
                "P6-production",
                "sha256:00",
                "none",
                "fork",
                "<b>\u{0}",
                "2026-11-25T00:00:00Z",
                "Startup finished in 9999999999999h (kernel) = 1s.",
            ];
            match random.below(3) {
                0 => *text = TEXTS[random.below(TEXTS.len())].to_owned(),
                1 => text.push('\u{202e}'),
                _ => drop(text.pop()),
            }
        }
        _ => *value = [json!(null), json!(0), json!(""), json!([]), json!({}), json!(true)][random.below(6)].clone(),
    }
}

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }
}

fn value(signed: &Signed) -> Value {
    serde_json::from_slice(&signed.json).unwrap()
}

fn list<'a>(document: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    document[name].as_array_mut().unwrap()
}

fn changed(genuine: &Signed, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut document = value(genuine);
    change(&mut document);
    serde_json_canonicalizer::to_vec(&document).unwrap()
}

fn without(document: &Value, field: &str) -> Vec<u8> {
    let mut document = document.clone();
    document.as_object_mut().unwrap().remove(field).unwrap();
    serde_json_canonicalizer::to_vec(&document).unwrap()
}

/// The same fields, the last one first.
fn reordered(document: &Value) -> String {
    let fields: BTreeMap<_, _> = document.as_object().unwrap().iter().collect();
    let fields: Vec<_> = fields.iter().rev().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", fields.join(","))
}

#[test]
fn the_trusted_comment_names_what_it_is_about() {
    let genuine = example();
    let transcript: Transcript = serde_json::from_slice(&genuine.json).unwrap();
    assert!(genuine.minisig.contains(&sign::trusted_comment(&transcript)));
}
