//! What a file may say, and what is said about one that says something else.

use super::captures::CAPTURE_KEYS;
use super::expectations::TEST_KEYS;
use super::sabotage::SABOTAGE_KEYS;
use super::*;
use crate::scenario::file::{Beside, read_text};
use crate::scenario::model::Tree;

/// The example of the design, as it stands there.
const EXAMPLE: &str = r#"
summary = "PostgreSQL serves the RAVE databases"
needs   = ["postgresql"]
timeout = "60s"

[[step]]
name   = "accepts connections"
run    = "pg_isready -h /run/postgresql -t 3"
within = "120s"                       # ask again until it holds; without it, ask once

[[step]]
name   = "the synapse database has the C collation"
run    = "sudo -u postgres psql -XAtqc \"select datcollate from pg_database where datname = 'synapse'\""
stdout = { equals = "C" }

[[step]]
name   = "no transaction is older than a minute"
level  = "warn"
run    = "…"
stdout = { at_most = 60 }

[[step]]
name = "Synapse sends a browser to GitLab"
[step.http]
get              = "/_matrix/client/v3/login/sso/redirect/oidc-gitlab?redirectUrl=https://rave.local:3002/harness/"
status           = 302
header.location  = { matches = '^https://rave\.local:3002/gitlab/oauth/authorize\?' }
capture.authorize = { header = "location" }
"#;

fn read(text: &str) -> Result<Scenario, String> {
    read_in(Phase::Health, text)
}

fn read_in(phase: Phase, text: &str) -> Result<Scenario, String> {
    let beside = Beside::default();
    let surroundings = Surroundings { folder: "scenarios".into(), beside: &beside };
    let read = read_text("x.toml".into(), phase, text, &surroundings);
    read.map_err(|mistakes| mistakes.to_string().replace("x.toml:", ""))
}

/// What is said about a whole file; nothing if it is right.
#[track_caller]
fn check_file(text: &str, expected: &str) {
    assert_eq!(read(text).err().unwrap_or_default(), expected, "{text}");
}

/// The same for the keys of one step; they begin in line 4.
#[track_caller]
fn check(text: &str, expected: &str) {
    check_file(&format!("summary = 's'\n[[step]]\nname = 'a'\n{text}\n"), expected);
}

/// The same for what is below `[step.http]`; it begins in line 5, with a `get` and a `status` in line 4.
#[track_caller]
fn check_http(text: &str, expected: &str) {
    check(&format!("[step.http]\nget = '/'\nstatus = 200\n{text}"), expected);
}

#[test]
fn the_example_of_the_design() {
    let scenario = read(EXAMPLE).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.needs[0].as_str()), ("health::x", "postgresql"));
    assert_eq!(scenario.steps.iter().map(|step| step.line).collect::<Vec<_>>(), [6, 11, 16, 22]);
    assert_eq!(scenario.steps[0].within, Some(Duration::from_secs(120)));
    assert_eq!(scenario.timeout, Duration::from_secs(180));
    assert_eq!(scenario.steps[2].level, Level::Warn);
    let described = |step: &Step| step.expectations.iter().map(Expectation::describe).collect::<Vec<_>>();
    assert_eq!(described(&scenario.steps[0]), ["exit = 0"]);
    assert_eq!(described(&scenario.steps[1]), ["exit = 0", r#"stdout = { equals = "C" }"#]);
    assert_eq!(described(&scenario.steps[3])[0], "status = 302");
    assert_eq!(scenario.steps[3].captures[0].name, "authorize");
}

/// What authors read is kept true: its example is right, and it names every test, key and variable.
#[test]
fn the_reference_page() {
    let page = include_str!("../../../../scenarios/README.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(read(example).map(|scenario| scenario.steps.len()), Ok(7));
    let built_ins = BUILT_INS.iter().map(|(name, ..)| name);
    let keys = [STEP_KEYS, METHODS, HTTP_KEYS, TEST_KEYS, CAPTURE_KEYS, SABOTAGE_KEYS].into_iter().flatten();
    let missing: Vec<_> = built_ins.chain(keys).filter(|word| !page.contains(&format!("`{word}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn all_that_can_be_written_is_right() {
    let text = r#"
summary = "everything"
needs = ["ssh"]
timeout = "1m 30s"
alone = true
secrets = ["password"]

[[step]]
name = "run"
run = "cat"
user = "anna"
stdin = "{{password}}"
within = "2m"
level = "fail"
skip = { reason = "r", until = "2027-01-31", tracker = "issue 7" }
exit = 1
stdout = [{ contains = "a" }, { json = "$.a", equals = { b = [1, true, "{{session.id}}"] } }]
stderr = { empty = false }
capture = { first = { stdout = true, matches = "a(b)" }, second = { html = "a", attribute = "href", secret = true } }
[[step.allow]]
line = "^x"
reason = "r"
until = "2027-01-31"

[[step]]
name = "http"
[step.http]
post = "{{first}}"
query = { a = "{{second}}", b = ["1", "2"] }
headers = { accept = "text/html" }
basic = { user = "anna", password = "{{password}}" }
json = { user = "{{password}}", list = [0x10, true] }
follow = 2
status = { at_least = 200, at_most = 299 }
header.Location = { matches = '\d{2}' }
body = { html = "a", attribute = "href", equals = ["a", "{{first}}"] }

[[step]]
name = "port"
port = 9100
send = "\n"
answers = true
body = { lines = ["{{machine.state}}"] }

[[step]]
name = "measure"
measure = "machine.rss_mib"
value = { at_most = 9000 }

[[step]]
name = "host"
host = "echo '{{image.disk}}' {{a,b},c}"
"#;
    let scenario = read(text).unwrap();
    let [run, http, port, measure, host] = &scenario.steps[..] else { panic!("{}", scenario.steps.len()) };
    assert_eq!((scenario.alone, scenario.timeout), (true, Duration::from_secs(90 + 120)));
    assert_eq!(run.expectations.len(), 4);
    assert_eq!(run.captures.iter().map(|capture| capture.line).collect::<Vec<_>>(), [19, 19]);
    assert_eq!(run.allow[0].at, 20);
    assert_eq!(run.uses.iter().collect::<Vec<_>>(), ["password", "session.id"]);
    let Ask::Http(request) = &http.ask else { panic!("{:?}", http.ask) };
    assert_eq!((request.method.as_str(), request.follow), ("POST", 2));
    let query: Vec<_> = request.query.iter().map(|(name, value)| (name.as_str(), value.0.as_str())).collect();
    assert_eq!(query, [("a", "{{second}}"), ("b", "1"), ("b", "2")]);
    assert!(
        matches!(&request.body, Body::Json(json) if *json == serde_json::json!({"user": "{{password}}", "list": [16, true]}))
    );
    assert!(matches!(&http.expectations[2].subject, Subject::Header(name) if name == "location"));
    assert!(matches!(&port.ask, Ask::Port { port: 9100, send } if send.0 == "\n"));
    let requires = [run, http, port, measure, host].map(|step| step.requires);
    let (machine, image) = (Requires::Machine, Requires::Image);
    assert_eq!(requires, [machine, machine, machine, machine, image]);
}

#[test]
fn requires_no_more_than_is_used() {
    let requires = |text: &str| read(&format!("summary = 's'\n[[step]]\nname = 'a'\n{text}")).unwrap().requires();
    assert_eq!(requires("host = 'true'"), Requires::Nothing);
    assert_eq!(requires("host = 'ls {{harness.scenarios}}'"), Requires::Nothing);
    assert_eq!(requires("host = 'ls {{image.dir}}'"), Requires::Image);
    assert_eq!(requires("host = 'ls {{session.dir}} {{image.dir}} {{guest.ca}}'"), Requires::Machine);
    assert_eq!(requires("host = 'cat'\nstdin = '{{guest.ca}}'"), Requires::Machine);
    assert_eq!(requires("host = 'cat'\nstdout = { equals = '{{machine.state}}' }"), Requires::Machine);
    assert_eq!(requires("measure = 'harness.rss_mib'\nvalue = { at_most = 64 }"), Requires::Nothing);
    assert_eq!(requires("measure = 'image.built_seconds'\nvalue = { at_most = 900 }"), Requires::Image);
    assert_eq!(requires("run = 'true'"), Requires::Machine);
}

#[test]
fn the_order_is_the_author_s() {
    let text = "summary = 's'\n[[step]]\nname = 'a'\n[step.http]\nget = '/'\nbody = { empty = true }\nstatus = 200\nform = { z = '1', a = '2' }";
    let step = read(text).unwrap().steps.remove(0);
    assert_eq!(step.expectations.iter().map(|expectation| expectation.line).collect::<Vec<_>>(), [6, 7]);
    let Ask::Http(request) = step.ask else { panic!() };
    assert!(matches!(request.body, Body::Form(form) if form[0].0 == "z"));
}

#[test]
fn every_mistake_is_reported() {
    let text = "sumary = 's'\nneeds = ['postgres', 'ssh', 'ssh']\ntimeout = 'soon'\nalone = 'no'\nsecrets = ['A', 'used', 'unused']\n\
                [[step]]\nrun = ''\nstduot = { equals = 'C' }\nlevel = 'warning'\n[[step]]\nname = 'b'\nrun = '{{used}}'\nexit = 'one'\nstdout = { matches = '(' }\n";
    check_file(
        text,
        "1: the scenario has no `summary`\n\
         1: unknown key `sumary`, did you mean `summary`?\n\
         2: `ssh` is needed twice\n\
         2: unknown capability `postgres`, did you mean `postgresql`?\n\
         3: `timeout` must be a time such as \"60s\", \"2m\" or \"1m 30s\", not \"soon\"\n\
         4: `alone` must be true or false, not a text\n\
         5: `A` cannot be the name of a variable: a-z first, then a-z, 0-9 and _\n\
         5: the secret `A` is never used\n\
         5: the secret `unused` is never used\n\
         6: the step has no `name`\n\
         7: `run` is empty\n\
         8: unknown key `stduot`, did you mean `stdout`?\n\
         9: `level` must be \"fail\" or \"warn\", not \"warning\"\n\
         13: `exit` must be a whole number or a table such as { not_equals = 0 }, not a text\n\
         14: `matches` is not a regular expression: unclosed group",
    );
}

#[test]
fn the_machine_goes_with_the_phase() {
    let step = "[[step]]\nname = 'a'\nrun = 'true'\n";
    let read = |phase, machine: &str| {
        read_in(phase, &format!("summary = 's'\n{machine}\n{step}")).map(|scenario| scenario.machine)
    };
    assert_eq!(read(Phase::Image, ""), Ok(On::Cold));
    assert_eq!(read(Phase::Boot, ""), Ok(On::Cold));
    assert_eq!(read(Phase::Health, ""), Ok(On::Fork));
    assert_eq!(read(Phase::Boot, "machine = 'cold'"), Ok(On::Cold));
    assert_eq!(read(Phase::Boot, "machine = 'fork'"), Ok(On::ForkOnly));
    assert_eq!(read(Phase::Image, "machine = 'fork'").unwrap_err(), "2: there are no forks before the phase `boot`");
    let late = "2: after the phase `boot` there is no cold machine";
    assert_eq!(read(Phase::Health, "machine = 'cold'").unwrap_err(), late);
    let word = "2: `machine` must be \"cold\" or \"fork\", not \"mine\"";
    assert_eq!(read(Phase::Health, "machine = 'mine'").unwrap_err(), word);
}

#[test]
fn sabotages() {
    let steps = "summary = 's'\n[[step]]\nname = 'a'\nrun = 'true'\n[[step]]\nname = 'b'\nhost = 'true'\n";
    let sabotage = |text: &str| read(&format!("{steps}[[sabotage]]\n{text}\n"));
    let whole = "name = 'x'\ntree = 'copy'\nhost = 'touch {{scratch.dir}}/a'\nrun = 'reboot'\nset = { 'image.disk' = '{{scratch.dir}}/a' }\n\
                 env = { PATH = '/bin' }\nfails = ['a']\nerrors = ['b']\nwithin = '3s'";
    let read_back = sabotage(whole).unwrap().sabotages.remove(0);
    assert_eq!((read_back.line, read_back.tree, read_back.within), (8, Tree::Copy, Some(Duration::from_secs(3))));
    assert_eq!((read_back.fails, read_back.errors), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(read_back.set[0].0, "image.disk");
    let said = |text: &str, expected: &str| assert_eq!(sabotage(text).unwrap_err(), expected, "{text}");
    said("name = 'x'\nfails = ['a']", "8: the sabotage breaks nothing: it needs one of `run`, `host`, `set`, `env`");
    said("name = 'x'\nrun = 'x'", "8: the sabotage does not say which step must notice: it needs `fails` or `errors`");
    said("run = 'x'\nfails = ['a']", "8: the sabotage has no `name`");
    said(
        "name = 'x'\nrun = 'x'\nfails = ['c', 'a', 'a']",
        "11: the step `a` is named twice\n11: there is no step `c`, did you mean `a`?",
    );
    said(
        "name = 'x'\nrun = '{{scratch.dri}}'\nfails = ['a']",
        "10: unknown variable `{{scratch.dri}}`, did you mean `scratch.dir`?",
    );
    said(
        "name = 'x'\nset = { 'image.dsk' = 'x' }\nfails = ['a']",
        "10: the run knows no `image.dsk`, did you mean `image.disk`?",
    );
    assert_eq!(sabotage("name = 'x'\nrun = 'x'\nbefore = 'b'\nfails = ['b']").unwrap().sabotages[0].before, 1);
    said("name = 'x'\nrun = 'x'\nbefore = 'b'\nfails = ['a', 'b']", "12: the step `a` has been asked by then");
    said("name = 'x'\nrun = 'x'\nbefore = 'c'\nfails = ['a']", "11: there is no step `c`, did you mean `a`?");
    said(
        "name = 'x'\nhost = 'x'\nbefore = 'b'\nfails = ['b']",
        "11: `before` says when `run` is carried out, and there is none",
    );
    said("name = 'x'\nrun = 'x'\nbreaks = ['a']\nfails = ['a']", "11: unknown key `breaks`");
    said("name = 'x'\nrun = 'x'\ntree = 'mine'\nfails = ['a']", "11: `tree` is \"copy\" or left out, not \"mine\"");
    let captures = "summary = 's'\n[[step]]\nname = 'a'\nrun = 'x'\ncapture.id = { stdout = true }\n\
                    [[step]]\nname = 'b'\nrun = 'x'\n[[sabotage]]\nname = 'x'\nrun = 'x {{id}}'\nfails = ['b']\n";
    read(&format!("{captures}before = 'b'")).unwrap();
    check_file(captures, "11: unknown variable `{{id}}`");
    check_file(
        "summary = 's'\n[[step]]\nname = 'a'\nrun = 'x'\nunbreakable = 'why'\n[[sabotage]]\nname = 'x'\nrun = 'x'\nfails = ['a']",
        "2: `a` is called unbreakable, and a sabotage names it",
    );
}

#[test]
fn whole_files() {
    check_file("", "1: the scenario has no `step`\n1: the scenario has no `summary`");
    check_file("summary = 's'\nstep = []", "2: the scenario has no step");
    check_file(
        "summary = 's'\nstep = 3",
        "2: `step` must be a list of tables, each below `[[step]]`, not a whole number",
    );
    check_file(
        "summary = 's'\nstep = [3]",
        "2: `step` must be a list of tables, each below `[[step]]`, not a whole number",
    );
    check_file(
        "summary = 's'\n[step]\nname = 'a'",
        "2: `step` must be a list of tables, each below `[[step]]`, not a table",
    );
    check_file("summary = ''\n[[step]]\nname = 'a'\nrun = 'x'", "1: `summary` is empty");
    check_file("summary = \"a\\nb\"\n[[step]]\nname = 'a'\nrun = 'x'", "1: `summary` must be one line");
    check_file(
        "summary = 's'\n[[step]]\nname = 'a'\nrun = 'x'\n[[step]]\nname = 'a'\nrun = 'x'",
        "6: the step in line 3 is called `a` as well",
    );
    check_file("summary = 's\n[[step]]\n", "1: is not TOML: invalid literal string, expected `'`");
    check_file("summary = 's'\nsummary = 't'\n", "2: is not TOML: duplicate key");
    check_file(
        "summary = 's'\nneeds = 'ssh'\n[[step]]\nname = 'a'\nrun = 'x'",
        "2: `needs` must be a list of capabilities, not a text",
    );
    check_file(
        "summary = 's'\nneeds = [\n'ssh',\n3]\n[[step]]\nname = 'a'\nrun = 'x'",
        "4: `needs` must be a text, not a whole number",
    );
    check_file(
        "summary = 's'\nsecrets = ['a', 'a']\n[[step]]\nname = 'a'\nrun = '{{a}}'",
        "2: `a` is a secret already, in line 2",
    );
}

#[test]
fn times_and_days() {
    for wrong in [
        "",
        "60",
        "s",
        "0s",
        "60 s",
        "1m  30s",
        "-1s",
        "1d",
        "+1s",
        "1.5s",
        "99999999999999999999s",
        "9999999999999999999h",
        "é",
    ] {
        check(
            &format!("run = 'x'\nwithin = '{wrong}'"),
            &format!("5: `within` must be a time such as \"60s\", \"2m\" or \"1m 30s\", not \"{wrong}\""),
        );
    }
    check("run = 'x'\nwithin = 60", "5: `within` must be a text, not a whole number");
    check("run = 'x'\nwithin = '1h 2m 3s'", "");
    for wrong in ["", "soon", "2027-02-30", "20270131", "2027-01-31T00:00"] {
        check(
            &format!("run = 'x'\nskip = {{ reason = 'r', until = '{wrong}' }}"),
            &format!("5: `until` must be a day such as \"2027-01-31\", not \"{wrong}\""),
        );
    }
    check(
        "run = 'x'\nskip = { reason = 'r', until = 2027-01-31 }",
        "5: `until` must be a text, not a date without quotes",
    );
}

#[test]
fn steps() {
    check("", "2: the step asks nothing: it needs one of `run`, `host`, `http`, `port`, `measure`");
    check("run = 'x'\nport = 9\nanswers = true", "5: the step asks by `run` already; a step asks one question");
    check("run = 3", "4: `run` must be a text, not a whole number");
    check("host = ' '", "4: `host` is empty");
    check("run = 'x'\nlevel = 3", "5: `level` must be a text, not a whole number");
    check("run = 'x'\nskip = true", "5: `skip` must be a table with `reason` and `until`, not true or false");
    check(
        "run = 'x'\nskip = { reson = 'r' }",
        "5: the skip has no `reason`\n5: the skip has no `until`\n5: unknown key `reson`, did you mean `reason`?",
    );
    check("run = 'x'\nskip = { reason = '', until = '2027-01-31' }", "5: `reason` is empty");
    check("run = 'x'\nuser = 'a b'", "5: `a b` cannot be the name of an account");
    check("host = 'x'\nuser = 'a'", "5: `user` does not fit a step that asks by `host`");
    check("run = 'x'\nstatus = 200", "5: `status` does not fit a step that asks by `run`");
    check("run = 'x'\nbody = { empty = true }", "5: `body` does not fit a step that asks by `run`");
    check("run = 'x'\nzzzzzzzz = 1", "5: unknown key `zzzzzzzz`");
    check("port = 0\nanswers = true", "4: `port` must be a number from 1 to 65535, not 0");
    check("port = 65536\nanswers = true", "4: `port` must be a number from 1 to 65535, not 65536");
    check("port = 1.5\nanswers = true", "4: `port` must be a whole number, not a number with a fraction");
    check("port = 99999999999999999999\nanswers = true", "4: `port` is too large a number");
    check("port = 9", "2: the step has no `answers`");
    check("port = 9\nanswers = 1", "5: `answers` must be true or false, not a whole number");
    check("port = 9\nanswers = false\nbody = { empty = true }", "6: `body` is expected of a port that must not answer");
    check(
        "measure = 'machine.rss'\nvalue = { at_most = 1 }",
        "4: the run knows no `machine.rss`, did you mean `machine.rss_mib`?",
    );
    check("measure = 'machine.rss_mib'", "2: the step has no `value`");
    check(
        "measure = 'machine.rss_mib'\nvalue = 3",
        "5: `value` must be a table such as { contains = \"…\" }, not a whole number",
    );
}

#[test]
fn allowed_lines() {
    const ALLOW: &str = "[[step.allow]]\nreason = 'r'\nuntil = '2027-01-31'";
    check(&format!("run = 'x'\nstdout = {{ empty = true }}\n{ALLOW}\nline = 'a'"), "");
    check(&format!("run = 'x'\nstdout = {{ empty = true }}\n{ALLOW}"), "6: the allowed line has no `line`");
    check(
        &format!("run = 'x'\nstdout = {{ empty = true }}\n{ALLOW}\nline = '['"),
        "9: `line` is not a regular expression: unclosed character class",
    );
    check(
        &format!("run = 'x'\n{ALLOW}\nline = 'a'"),
        "2: the step allows lines of stdout, but expects nothing of stdout",
    );
    check(
        "run = 'x'\nstdout = { empty = true }\nallow = [{ line = 'a' }]",
        "6: the allowed line has no `reason`\n6: the allowed line has no `until`",
    );
    check("run = 'x'\nallow = 'a'", "5: `allow` must be a list of tables, each below `[[step.allow]]`, not a text");
}

#[test]
fn requests() {
    check_http("", "");
    check("http = { get = '/', status = 200 }", "");
    check("http = '/'", "4: `http` must be a table, below `[step.http]`, not a text");
    check("[step.http]\nget = '/'", "4: the step does not say which `status` it expects");
    check(
        "[step.http]\nstatus = 200",
        "4: the request has no method: it needs one of `get`, `post`, `put`, `patch`, `delete`, `head`, `options`",
    );
    check_http("post = '/'", "7: the request has a method already, `get`");
    check_http("gett = '/'", "7: unknown key `gett`, did you mean `get`?");
    check_http("stdout = { equals = 'a' }", "7: `stdout` does not fit a step that asks by `http`");
    check_http("within = '3s'", "7: `within` belongs to the step, above `[step.http]`");
    check("status = 200\n[step.http]\nget = '/'\nstatus = 200", "4: `status` belongs below `[step.http]`");
    check(
        "[step.http]\nget = 'x'\nstatus = 200",
        "5: `get` must be a path that starts with `/`, or a whole `https://` address",
    );
    check(
        "[step.http]\nget = 'http://x'\nstatus = 200",
        "5: `get` must be a path that starts with `/`, or a whole `https://` address",
    );
    check("[step.http]\nget = 'https://x/{{session.id}}'\nstatus = 200", "");
    check_http("query = 'a'", "7: `query` must be a table of texts, not a text");
    check_http("query = { a = 1 }", "7: `a` must be a text, not a whole number");
    check_http("query = { a = ['b', 1] }", "7: `a` must be a text, not a whole number");
    check_http("headers = { 'a b' = 'c' }", "7: `a b` cannot be the name of a header");
    check_http("form = { a = 'b' }\ntext = 'c'", "8: the request sends `form` already");
    check_http("basic = { user = 'a' }", "7: `basic` has no `password`");
    check_http("basic = { user = 'a', password = 'b', pass = 'c' }", "7: unknown key `pass`, did you mean `password`?");
    check_http("json = { a = 1.5 }", "7: `a` has a number with a fraction; numbers are whole here");
    check_http("json = { a = [2027-01-31] }", "7: `a` has a date without quotes, which JSON does not know");
    check_http("follow = -1", "7: `follow` must be a number from 0 to 20, not -1");
    check_http("header = { 'a b' = { empty = true } }", "7: `a b` cannot be the name of a header");
    check_http("header.a = 'b'", "7: `a` must be a table such as { contains = \"…\" }, not a text");
    check_http("header = 'b'", "7: `header` must be a table of headers, not a text");
}

#[test]
fn expectations() {
    let stdout = |text: &str, expected: &str| check(&format!("run = 'x'\nstdout = {text}"), expected);
    const TESTS: &str = "`equals`, `not_equals`, `contains`, `not_contains`, `matches`, `not_matches`, `at_most`, `at_least`, `lines`, `count`, `every_line`, `empty`";
    stdout("'a'", "5: `stdout` must be a table such as { contains = \"…\" }, not a text");
    stdout("{}", &format!("5: `stdout` expects nothing: it needs one of {TESTS}"));
    stdout("[]", "5: `stdout` expects nothing");
    stdout("[{ contains = 'a' }, 3]", "5: `stdout` must be a table such as { contains = \"…\" }, not a whole number");
    stdout("{ json = '$.a' }", &format!("5: `stdout` expects nothing: it needs one of {TESTS}"));
    stdout(
        "{ contain = 'a' }",
        &format!(
            "5: `stdout` expects nothing: it needs one of {TESTS}\n5: unknown key `contain`, did you mean `contains`?"
        ),
    );
    stdout(
        "{ equals = [1] }",
        "5: `equals` must be a text or a whole number (with `json = \"$\"` beside it, any value), not a list",
    );
    stdout(
        "{ equals = 1.5 }",
        "5: `equals` must be a text or a whole number (with `json = \"$\"` beside it, any value), not a number with a fraction",
    );
    stdout("{ json = '$', equals = 1.5 }", "5: `equals` has a number with a fraction; numbers are whole here");
    stdout("{ json = '$', equals = [1, { a = true }] }", "");
    stdout("{ html = 'a', equals = 1 }", "5: `equals` must be a text or a list of texts, not a whole number");
    stdout("{ contains = 1 }", "5: `contains` must be a text, not a whole number");
    stdout("{ contains = '' }", "5: `contains` says nothing: every text contains the empty one");
    stdout("{ json = '$', contains = 1 }", "");
    stdout("{ matches = '' }", "5: `matches` is empty");
    stdout("{ matches = 3 }", "5: `matches` must be a text, not a whole number");
    stdout(
        "{ not_matches = '*' }",
        "5: `not_matches` is not a regular expression: repetition operator missing expression",
    );
    stdout(
        "{ every_line = 'a{2,1}' }",
        "5: `every_line` is not a regular expression: invalid repetition count range, the start must be <= the end",
    );
    stdout("{ matches = '{{session.id}}' }", "5: `{{session.id}}` is not filled in here, in `matches`");
    stdout("{ at_most = '60' }", "5: `at_most` must be a whole number, not a text");
    stdout("{ at_least = 1.5 }", "5: `at_least` must be a whole number, not a number with a fraction");
    stdout("{ count = -1 }", &format!("5: `count` must be a number from 0 to {}, not -1", i64::MAX));
    stdout("{ empty = 'yes' }", "5: `empty` must be true or false, not a text");
    stdout("{ lines = 'a' }", "5: `lines` must be a list of texts, not a text");
    stdout("{ lines = [1] }", "5: `lines` must be a text, not a whole number");
    stdout("{ lines = [\"a\\nb\"] }", "5: each of `lines` must be one line");
    stdout("{ json = '$', html = 'a', empty = true }", "5: a value is selected by `json` or by `html`, not by both");
    stdout("{ attribute = 'a', empty = true }", "5: `attribute` needs `html` beside it");
    stdout(
        "{ json = '$.', empty = true }",
        "5: `json` is not a JSON path (RFC 9535): at position 2, in dot member name, must start with lowercase alpha or '_'",
    );
    stdout("{ html = 'a[', empty = true }", "5: `html` is not a CSS selector: Unexpected EOL");
    check("run = 'x'\nexit = { contains = 1 }", "5: `contains` does not fit `exit`, which is a number");
    check("run = 'x'\nexit = { json = '$', equals = 1 }", "5: `json` does not fit `exit`, which is a number");
    check("run = 'x'\nexit = { equals = '1' }", "5: `equals` must be a whole number, not a text");
    check(
        "run = 'x'\nexit = 1.5",
        "5: `exit` must be a whole number or a table such as { not_equals = 0 }, not a number with a fraction",
    );
}

#[test]
fn captures() {
    let run = |text: &str, expected: &str| check(&format!("run = 'x'\ncapture.{text}"), expected);
    run("a = { stdout = true }", "");
    run("A = { stdout = true }", "5: `A` cannot be the name of a variable: a-z first, then a-z, 0-9 and _");
    run("1a = { stdout = true }", "5: `1a` cannot be the name of a variable: a-z first, then a-z, 0-9 and _");
    run("a = 'b'", "5: `a` must be a table such as { json = \"$.id\" }, not a text");
    run("a = {}", "5: `a` takes nothing: it needs one of `header`, `stdout`, `stderr`, `body`, `json`, `html`");
    run("a = { stdout = false }", "5: `stdout` is true or left out");
    run("a = { stdout = true, stderr = true }", "5: the capture takes `stdout` already");
    run("a = { stdout = true, secrt = true }", "5: unknown key `secrt`, did you mean `secret`?");
    run("a = { stdout = true, secret = 'yes' }", "5: `secret` must be true or false, not a text");
    run("a = { header = 'location' }", "5: `header` does not fit a step that asks by `run`");
    run("a = { body = true }", "5: `body` does not fit a step that asks by `run`");
    run("a = { json = '$[' }", "5: `json` is not a JSON path (RFC 9535): at position 1, parser error");
    run("a = { stdout = true, matches = '(' }", "5: `matches` is not a regular expression: unclosed group");
    check("run = 'x'\ncapture = 'a'", "5: `capture` must be a table of captures, not a text");
    check(
        "measure = 'session.id'\nvalue = { empty = false }\ncapture.a = { json = '$' }",
        "6: `capture` does not fit a step that asks by `measure`",
    );
    check_http("capture.a = { stdout = true }", "7: `stdout` does not fit a step that asks by `http`");
    check_http("capture.a = { header = 'a b' }", "7: `a b` cannot be the name of a header");
    check(
        "capture.a = { header = 'a' }\n[step.http]\nget = '/'\nstatus = 200",
        "4: `capture` belongs below `[step.http]`",
    );
}

#[test]
fn variables() {
    check("run = '{{session.idd}}'", "4: unknown variable `{{session.idd}}`, did you mean `session.id`?");
    check("run = '{{ session.id }}'", "4: unknown variable `{{ session.id }}`, did you mean `session.id`?");
    check("run = '{{session.id}'", "4: `{{session.id` is not closed by `}}`");
    check("run = 'x'\nstdin = '{{zzz}}'", "5: unknown variable `{{zzz}}`");
    check("run = 'x'\nstdout = { not_contains = '{{zzz}}' }", "5: unknown variable `{{zzz}}`");
    check("run = 'x'\nstdout = { lines = ['{{zzz}}'] }", "5: unknown variable `{{zzz}}`");
    check(
        "run = 'echo {{own}}'\ncapture.own = { stdout = true }",
        "4: `{{own}}` is not known yet: it is captured in line 5",
    );
    check_http("json = { a = ['{{zzz}}'] }", "7: unknown variable `{{zzz}}`");
    check_http("form = { a = '{{zzz}}' }", "7: unknown variable `{{zzz}}`");
    check_http("basic = { user = '{{zzz}}', password = '' }", "7: unknown variable `{{zzz}}`");
    let first = "run = 'x'\ncapture.token = { stdout = true }\n[[step]]\nname = 'b'\n";
    check(&format!("{first}run = '{{{{token}}}}'"), "");
    check(&format!("{first}run = '{{{{tokn}}}}'"), "8: unknown variable `{{tokn}}`, did you mean `token`?");
    check(
        &format!("{first}run = 'x'\ncapture.token = {{ stdout = true }}"),
        "9: `token` is a captured value already, in line 5",
    );
    let later = "run = '{{token}}'\n[[step]]\nname = 'b'\n[step.http]\nget = '/'\nstatus = 200\ncapture.token = { body = true }";
    check(later, "4: `{{token}}` is not known yet: it is captured in line 10");
}

/// Whatever is written, there is an answer and no panic.
#[test]
fn no_text_makes_it_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let pieces = [
        "{{",
        "}}",
        "[[step]]\n",
        "'",
        "\"",
        "= ",
        "1.5",
        "é",
        "\n",
        "[",
        "{",
        "true",
        "http",
        "stdout",
        "capture.a = ",
        "2027-01-01",
        "\0",
    ];
    let mut right = 0;
    for _ in 0..3000 {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for _ in 0..=random(4) {
            let from = random(text.len());
            let to = (from + random(12)).min(text.len());
            let piece = match random(3) {
                0 => String::new(),
                1 => pieces[random(pieces.len())].to_owned(),
                _ => text[to..(to + random(40)).min(text.len())].iter().collect(),
            };
            text.splice(from..to, piece.chars());
        }
        match read(&text.iter().collect::<String>()) {
            Ok(_) => right += 1,
            Err(mistakes) => assert!(!mistakes.is_empty()),
        }
    }
    assert!(right > 0);
}
