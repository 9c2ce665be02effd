//! P6 without nixpkgs: every Nix file parses, the flake has its outputs, and its modules set only options that are in the
//! table of what the real modules declare. With `RAVE_NIXPKGS` (a folder with nixpkgs' `lib`) and `RAVE_SOPS_NIX` the same on
//! the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use camino::Utf8Path;
use rave_hermetic::scenario::guests::Guests;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

fn nix_instantiate(arguments: &[&str]) -> Output {
    let mut command = Command::new("nix-instantiate");
    // Evaluating builds nothing, but Nix wants to know who would.
    command.args(arguments).current_dir(root()).env("NIX_CONFIG", "build-users-group =");
    command.output().expect("nix-instantiate (package nix-bin)")
}

fn evaluate(expression: &str) -> Result<Value, String> {
    let output = nix_instantiate(&["--eval", "--strict", "--json", "--expr", expression]);
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// P6, with one module more.
fn p6(also: &str) -> Result<Value, String> {
    evaluate(&format!("import ./nixos-tests/offline/p6.nix {{ also = {also}; }}"))
}

fn names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(object) => object.keys().cloned().collect(),
        Value::Array(list) => list.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
        _ => panic!("{value}"),
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_nix_file_parses() {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.nix"])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<&str> = listed.lines().filter(|file| root().join(file).exists()).collect();
    assert!(files.len() > 30, "{files:?}");
    let output = nix_instantiate(&[&["--parse"], files.as_slice()].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_flake_has_its_outputs_and_each_can_be_made() {
    let outputs = evaluate("import ./nixos-tests/offline/outputs.nix").unwrap();
    assert_eq!(names(&outputs["packages"]), set(&["default", "hermetic", "p6-image", "rave-bridge", "rave-sandbox"]));
    assert_eq!(names(&outputs["configurations"]), set(&["p6"]));
    assert_eq!(names(&outputs["modules"]), set(&["default", "p6"]));
    assert!(outputs["app"].as_str().unwrap().ends_with("/bin/rave-smoke"));
    let checks = names(&outputs["checks"]);
    let wanted = ["nix-format", "rust-format", "clippy", "unit-tests"].map(str::to_owned).into_iter();
    let wanted =
        wanted.chain(["ssh", "firewall", "nginx", "synapse", "secrets"].map(|module| format!("module-{module}")));
    // One acceptance check for each phase but `config`, which is about the tree; `lib` holds texts.
    let phases = std::fs::read_dir(root().join("scenarios")).unwrap().map(|entry| entry.unwrap());
    let phases = phases.map(|entry| entry.file_name().into_string().unwrap());
    let phases =
        phases.filter(|name| root().join("scenarios").join(name).is_dir() && name != "config" && name != "lib");
    let phases = phases.map(|phase| format!("p6-{}", phase.replace('_', "-")));
    let missing: Vec<String> = wanted.chain(phases).filter(|name| !checks.contains(name)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_lock_is_in_step_with_the_flake() {
    let inputs = evaluate("(import ./flake.nix).inputs").unwrap();
    let lock: Value = serde_json::from_str(&text("flake.lock")).unwrap();
    let nodes = &lock["nodes"];
    assert_eq!(lock["version"], 7);
    assert_eq!(names(&nodes["root"]["inputs"]), names(&inputs));
    for (name, input) in inputs.as_object().unwrap() {
        let node = &nodes[nodes["root"]["inputs"][name].as_str().unwrap()];
        let mut parts = input["url"].as_str().unwrap().strip_prefix("github:").unwrap().split('/');
        let original = &node["original"];
        assert_eq!((original["owner"].as_str(), original["repo"].as_str()), (parts.next(), parts.next()), "{name}");
        assert_eq!(original["ref"].as_str(), parts.next(), "{name}");
        let locked = &node["locked"];
        assert_eq!((&locked["owner"], &locked["repo"]), (&original["owner"], &original["repo"]), "{name}");
        assert_eq!(locked["rev"].as_str().map(str::len), Some(40), "{name}");
        assert!(locked["narHash"].as_str().unwrap().starts_with("sha256-"), "{name}");
        let follows = input["inputs"].as_object().into_iter().flatten();
        for (inner, followed) in follows {
            assert_eq!(node["inputs"][inner][0], followed["follows"], "{name}");
        }
    }
}

#[test]
fn p6_sets_only_options_that_there_are() {
    let p6 = p6("{ }").unwrap();
    assert!(names(&p6["options"]).len() > 200);
    assert_eq!(names(&p6["unused"]), set(&[]), "rows of options.tsv that nothing needs");
    // Each row says where its option was read.
    for line in text("nixos-tests/offline/options.tsv").lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        assert!(cells.len() >= 3 && cells[2].contains(".nix"), "{line}");
    }
}

#[test]
fn a_mistake_in_an_option_is_found() {
    let check = |also: &str, expected: &str| {
        let error = p6(also).expect_err(also);
        assert!(error.contains(expected), "`{expected}` was not said of {also}:\n{error}");
    };
    check("{ services.postgresql.enabel = true; }", "services.postgresql.enabel: there is no such option");
    check("{ virtualisation.libvirtd.qemu.ovmf.enable = true; }", "virtualisation.libvirtd: there is no such option");
    check("{ systemd.extraConfig = ''x''; }", "systemd.extraConfig: there is no such option");
    check("{ rave.saveMode = true; }", "rave.saveMode: there is no such option");
    check(
        r#"{ services.nginx.virtualHosts."rave.local".locations."/x".proxyPas = "y"; }"#,
        "proxyPas: there is no such option",
    );
    check(
        "{ services.matrix-synapse.settings.listeners = [ { prot = 1; } ]; }",
        "services.matrix-synapse.settings.listeners.0.prot: there is no such option",
    );
    check(r#"{ systemd.services.x.serviceconfig.User = "y"; }"#, "systemd.services.x.serviceconfig: there is no such");
    check("{ services.gitlab = 3; }", "services.gitlab: takes options, and is given a value");
    check(
        r#"{ lib, ... }: { services.gitlab.port = lib.mkForce "3002"; }"#,
        "services.gitlab.port: a value of a module is not of type `port` (nixos/modules/services/misc/gitlab.nix)",
    );
    check(
        r#"{ lib, ... }: { services.openssh.settings.PermitRootLogin = lib.mkForce "maybe"; }"#,
        "services.openssh.settings.PermitRootLogin: a value of a module is not of type",
    );
    check(r#"{ services.gitlab.host = "other"; }"#, "services.gitlab.host: is defined differently in gitlab.nix");
    check("{ pkgs, ... }: { environment.systemPackages = [ pkgs.curll ]; }", "attribute 'curll' missing");
}

#[test]
fn what_p6_says_of_itself_follows_from_its_configuration() {
    let with = |also: &str| names(&p6(also).unwrap()["profile"]["capabilities"]);
    let all = with("{ }");
    let expected = ["ssh", "nftables", "nginx", "postgresql", "gitlab", "oidc", "matrix", "element", "grafana"];
    let more = ["prometheus", "node_exporter", "bridge", "runner", "sandbox"];
    assert_eq!(all, set(&[expected.as_slice(), more.as_slice()].concat()));
    let without =
        with("{ lib, ... }: { services.grafana.enable = lib.mkForce false; rave.fullPipe = lib.mkForce false; }");
    let gone: Vec<&String> = all.difference(&without).collect();
    assert_eq!(gone, ["grafana", "runner", "sandbox"]);
    let profile = &p6("{ }").unwrap()["profile"];
    assert_eq!((&profile["name"], &profile["schema"]), (&"P6-production".into(), &1.into()));
    assert!(profile["capabilities"].as_object().unwrap().values().all(|found| found["stand_in"] == false));
}

/// `a.b` for each key of a table, and of the tables in it.
fn keys(table: &Value, above: &str) -> BTreeSet<String> {
    let inner = |(key, value): (&String, &Value)| match value {
        Value::Object(_) => keys(value, &format!("{above}{key}.")),
        _ => BTreeSet::from([format!("{above}{key}")]),
    };
    table.as_object().unwrap().iter().flat_map(inner).collect()
}

#[test]
fn the_appliances_own_programs_get_settings_that_they_know() {
    let p6 = p6("{ }").unwrap();
    let reference: toml::Table =
        toml::from_str(&text("guest/reference/parts/bridge/files/etc/rave/bridge.toml")).unwrap();
    assert_eq!(keys(&p6["bridge"], ""), keys(&serde_json::to_value(reference).unwrap(), ""));
    let known = text("guest/rave-sandbox/src/settings.rs");
    for key in keys(&p6["sandbox"], "") {
        let field = format!("{}: ", key.rsplit('.').next().unwrap());
        assert!(known.contains(&field), "rave-sandbox knows no `{key}`");
    }
}

#[test]
fn gitlabs_relative_root_is_known_in_all_five_places() {
    let p6 = p6("{ }").unwrap();
    assert!(p6["workhorse"].as_str().unwrap().contains(" -authBackend http://localhost:8080/gitlab "), "{p6:#}");
    assert_eq!(p6["issuers"][0], "https://rave.local:3002/gitlab");
    let gitlab = text("nixos-tests/p6/gitlab.nix");
    for place in [
        "relative_url_root = root;",
        "extraEnv.RAILS_RELATIVE_URL_ROOT = root;",
        "extraShellConfig.gitlab_relative_url_root = root;",
        "packages.gitaly = gitaly;",
        r#"relative_url_root = "${root}""#,
    ] {
        assert!(gitlab.contains(place), "{place}");
    }
}

#[test]
fn services_wait_for_what_their_modules_do_not_make_them_wait_for() {
    let order = &p6("{ }").unwrap()["order"];
    assert_eq!(order["secrets_before"], serde_json::json!(["sysinit.target"]));
    assert_eq!(order["gitlab_db_config_after"], serde_json::json!(["gitlab-postgresql.service"]));
}

#[test]
fn secrets_are_all_there_and_all_encrypted() {
    let wanted = names(&p6("{ }").unwrap()["secrets"]);
    let file = text("nixos-tests/secrets/test.yaml");
    let (secrets, about) = file.split_once("\nsops:\n").unwrap();
    let entries: Vec<(&str, &str)> = secrets.lines().map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(entries.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>(), wanted);
    for (name, value) in entries {
        assert!(value.starts_with("ENC[AES256_GCM,data:") && value.ends_with(",type:str]"), "{name} is not encrypted");
    }
    for part in ["recipient: age1", "mac: ENC[AES256_GCM,", "lastmodified: "] {
        assert!(about.contains(part), "{part}");
    }
    // A fresh set has the same names.
    let fresh = Command::new(root().join("nixos-tests/secrets/new")).output().unwrap();
    let fresh = String::from_utf8(fresh.stdout).unwrap();
    let fresh: BTreeSet<String> = fresh
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(':').next().unwrap().into())
        .collect();
    assert_eq!(fresh, wanted);
}

/// What scenarios expect of a P6 that nobody booted yet is not invented.
#[test]
fn what_is_expected_of_p6_follows_from_its_configuration() {
    let guests = Guests::read(&Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")).unwrap();
    let of = |guest: &str| guests.of(guest).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let [production, reference]: [BTreeMap<String, String>; 2] = ["P6-production", "P6-reference"].map(of);
    let alone: Vec<_> = production.keys().filter(|name| !reference.contains_key(*name)).collect();
    assert!(alone.is_empty(), "{alone:?} cannot be tried on the reference guest");

    let found = p6("{ }").unwrap();
    let mut owners: BTreeMap<String, String> = serde_json::from_value(found["secrets"].clone()).unwrap();
    owners.insert("synapse-appservice.yaml".into(), "matrix-synapse".into());
    owners.insert("tls.key".into(), production["guest.nginx_user"].clone());
    let expected: Vec<_> = owners.iter().map(|(name, owner)| format!("f 400 {owner} {owner} {name}")).collect();
    assert_eq!(production["guest.secrets"].lines().collect::<Vec<_>>(), expected);
    let accounts: BTreeSet<_> = production["guest.accounts"].split(' ').collect();
    assert!(owners.values().all(|owner| owner == "root" || accounts.contains(owner.as_str())), "{accounts:?}");
}

#[test]
fn the_real_lib_of_nixpkgs_agrees() {
    let Ok(nixpkgs) = std::env::var("RAVE_NIXPKGS") else {
        return eprintln!("not asked: RAVE_NIXPKGS names no folder with nixpkgs' lib");
    };
    let sops = std::env::var("RAVE_SOPS_NIX").map_or_else(|_| "null".to_owned(), |path| format!("/. + \"{path}\""));
    let with = |also: &str| {
        evaluate(&format!(
            "import ./nixos-tests/offline/nixpkgs-lib.nix {{ nixpkgs = /. + \"{nixpkgs}\"; sops-nix = {sops}; also = {also}; }}"
        ))
    };
    let found = with("{ }").unwrap();
    eprintln!("lib {}, {} options", found["lib"], names(&found["options"]).len());
    let check = |also: &str, expected: &str| {
        let error = with(also).expect_err(also);
        assert!(error.contains(expected), "`{expected}` was not said of {also}:\n{error}");
    };
    check("{ services.postgresql.enabel = true; }", "The option `services.postgresql.enabel' does not exist");
    check(r#"{ services.gitlab.host = "other"; }"#, "conflicting definition values");
    if sops != "null" {
        check(r#"{ sops.secrets.x.ownr = "root"; }"#, "The option `sops.secrets.x.ownr' does not exist");
    }
}
