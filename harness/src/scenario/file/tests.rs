//! Which files are read, and what is said about folders that are not as they should be.

use std::time::{Duration, Instant};

use camino::Utf8PathBuf;

use super::*;
use crate::scenario::model::Requires;

const RIGHT: &[u8] = b"summary = 's'\n[[step]]\nname = 'a'\nrun = 'x'\n";

/// A folder with these files; a path that ends in `/` is a folder.
fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Utf8PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Utf8PathBuf::from_path_buf(temporary.path().join("scenarios")).unwrap();
    fs::create_dir(&folder).unwrap();
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match path.as_str().ends_with('/') {
            true => fs::create_dir_all(&path).unwrap(),
            false => fs::write(&path, content).unwrap(),
        }
    }
    (temporary, folder)
}

fn names(read: Result<Folder, Mistakes>, folder: &Utf8Path) -> String {
    match read {
        Ok(folder) => folder.scenarios.iter().map(|scenario| scenario.name.as_str()).collect::<Vec<_>>().join(" "),
        Err(mistakes) => mistakes.to_string().replace(folder.as_str(), "scenarios"),
    }
}

#[track_caller]
fn check(files: &[(&str, &[u8])], expected: &str) {
    let (_temporary, folder) = folder(files);
    assert_eq!(names(read(&folder), &folder), expected);
}

#[test]
fn reads_in_the_order_of_phases_and_names() {
    let files = ["security/a.toml", "boot/z.toml", "boot/a_2.toml", "agent_control/x.toml", "config/k.toml"];
    check(&files.map(|file| (file, RIGHT)), "config::k boot::a_2 boot::z agent_control::x security::a");
}

#[test]
fn folders() {
    check(&[], "scenarios: there is no scenario below this folder");
    check(&[("README.md", b"")], "scenarios: there is no scenario below this folder");
    check(&[("boot/", b"")], "scenarios/boot: there is no scenario in this folder");
    check(&[("README.md", b""), ("boot/a.toml", RIGHT), ("boot/.a.toml.swp", b"")], "boot::a");
    check(&[("a.toml", RIGHT)], "scenarios/a.toml: a scenario lies in the folder of its phase, not here");
    check(&[("bot/a.toml", RIGHT)], "scenarios/bot: `bot` is not a phase, did you mean `boot`?");
    check(
        &[("boot/a.toml", RIGHT), ("boot/more/b.toml", RIGHT)],
        "scenarios/boot/more: folders below a phase are not read",
    );
    check(&[("boot/a.tml", RIGHT)], "scenarios/boot/a.tml: is not a scenario: its name does not end in `.toml`");
    check(&[("boot/A-b.toml", RIGHT)], "scenarios/boot/A-b.toml: `A-b` cannot be a name: only a-z, 0-9 and _");
    check(&[("boot/a.toml", b"summary = 's'\n\n# \xff\n")], "scenarios/boot/a.toml:3: is not UTF-8");
}

#[test]
fn what_guests_call_a_thing_is_used() {
    let uses: &[u8] = b"summary = 's'\n[[step]]\nname = 'a'\nhost = 'echo {{guest.nginx}}'\n";
    let guests: &[u8] = b"[P6-a]\nnginx = 'www-data'\n";
    let files = &[("oidc/a.toml", uses), ("guests.toml", guests)];
    check(files, "oidc::a");
    let (_temporary, folder) = folder(files);
    assert_eq!(read(&folder).unwrap().scenarios[0].requires(), Requires::Machine);
    check(
        &[("oidc/a.toml", uses), ("guests.toml", b"[P6-a]\nngins = 'nginx'\n[P6-b]\nca = 'x'\n")],
        "scenarios/guests.toml:4: `ca` cannot be a name here: only a-z, 0-9 and _, and not ca\n\
         scenarios/oidc/a.toml:4: unknown variable `{{guest.nginx}}`",
    );
}

#[test]
fn texts_of_the_library_and_accounts_are_used() {
    let uses: &[u8] = b"summary = 's'\n[[step]]\nname = 'a'\nrun = 'cat'\nstdin = { file = 'lib/say.py' }\n";
    let accounts: &[u8] = b"group = 'rave'\n[[account]]\nusername = 'dana'\nname = 'Dana'\n";
    let script: &[u8] = b"print('{{account.dana.token}}')";
    let files = &[("oidc/a.toml", uses), ("accounts.toml", accounts), ("lib/say.py", script)];
    check(files, "oidc::a");
    let (_temporary, folder) = folder(files);
    let step = &read(&folder).unwrap().scenarios[0].steps[0];
    assert!(step.uses.contains("account.dana.token"));
    check(
        &[("oidc/a.toml", uses)],
        "scenarios/oidc/a.toml:5: `scenarios/lib/say.py` cannot be read: No such file or directory (os error 2)",
    );
    check(
        &[("oidc/a.toml", uses), ("accounts.toml", accounts), ("lib/say.py", b"{{account.dan.token}}")],
        "scenarios/oidc/a.toml:5: unknown variable `{{account.dan.token}}`, did you mean `account.dana.token`?",
    );
}

#[test]
fn the_mistakes_of_all_files_are_reported() {
    let files: &[(&str, &[u8])] =
        &[("boot/b.toml", b"x"), ("boot/a.toml", b"step = []"), ("health/c.toml", RIGHT), ("x.toml", RIGHT)];
    check(
        files,
        "scenarios/boot/a.toml:1: the scenario has no `summary`\n\
         scenarios/boot/a.toml:1: the scenario has no step\n\
         scenarios/boot/b.toml:1: is not TOML: key with no value, expected `=`\n\
         scenarios/x.toml: a scenario lies in the folder of its phase, not here",
    );
}

#[test]
fn what_cannot_be_read_is_a_mistake() {
    let (_temporary, folder) = folder(&[("boot/a.toml", RIGHT)]);
    let missing = folder.join("boot/b.toml");
    std::os::unix::fs::symlink("nowhere", &missing).unwrap();
    assert_eq!(
        names(read(&folder), &folder),
        "scenarios/boot/b.toml: cannot be read: No such file or directory (os error 2)"
    );
    let nowhere = folder.join("nowhere");
    assert_eq!(names(read(&nowhere), &nowhere), "scenarios: cannot be read: No such file or directory (os error 2)");
}

/// A hundred files are read in a time nobody notices. The limit is generous, for busy machines.
#[test]
fn is_quick() {
    let text = "[[step]]\nname = '@'\nrun = 'x'\nstdout = [{ matches = '^a+$' }, { json = '$.a', contains = 'b' }]\n";
    let steps: String = (0..5).map(|index| text.replace('@', &index.to_string())).collect();
    let file = format!("summary = 's'\n{steps}").into_bytes();
    let paths: Vec<_> = (0..100).map(|index| format!("boot/s{index}.toml")).collect();
    let files: Vec<_> = paths.iter().map(|path| (path.as_str(), &file[..])).collect();
    let (_temporary, folder) = folder(&files);
    let started = Instant::now();
    assert_eq!(read(&folder).unwrap().scenarios.len(), 100);
    let took = started.elapsed();
    println!("{took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}
