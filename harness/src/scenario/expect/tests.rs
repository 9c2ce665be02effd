//! What holds of an answer and what does not, and how it is said.

use std::time::Duration;

use super::*;
use crate::scenario::file::{Beside, Surroundings, read_text};
use crate::scenario::model::{Phase, Scenario};

fn read(text: &str) -> Scenario {
    let beside = Beside::default();
    let surroundings = Surroundings { folder: "scenarios".into(), beside: &beside };
    let read = read_text("scenarios/health/x.toml".into(), Phase::Health, text, &surroundings);
    read.unwrap_or_else(|mistakes| panic!("{mistakes}\nin:\n{text}"))
}

/// A step with an earlier one that captures `user`, so that it may use that, and a secret `password`.
fn step(text: &str) -> Step {
    let before = "summary = 's'\nsecrets = ['password']\n[[step]]\nname = 'a'\nrun = 'echo {{password}}'\ncapture.user = { stdout = true }\n";
    read(&format!("{before}[[step]]\nname = 'b'\n{text}")).steps.remove(1)
}

fn variables() -> Variables {
    [("user", "anna"), ("password", "hunter2")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn today() -> Date {
    "2026-12-01".parse().unwrap()
}

fn command(exit: Exit, stdout: &str, stderr: &str) -> Answer {
    let (stdout, stderr) = (stdout.into(), stderr.into());
    Answer::Command(Captured { exit, stdout, stderr, took: Duration::ZERO })
}

fn http(body: &str) -> Answer {
    let headers = [("Location", "https://rave.local:3002/login"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Answer::Http { status: 302, headers, body: body.into() }
}

fn said(step: &Step, answer: &Answer) -> String {
    let mismatches = judge(step, answer, &variables(), today());
    let said =
        mismatches.iter().map(|Mismatch { what, expected, actual, .. }| format!("{what}: {expected} | {actual}"));
    said.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check_step(text: &str, answer: &Answer, expected: &str) {
    assert_eq!(said(&step(text), answer), expected, "{text}");
}

/// `expectation` is what stands inside `stdout = { … }`; nothing expected to be said: it holds.
#[track_caller]
fn check(expectation: &str, stdout: &str, expected: &str) {
    let answer = command(Exit::Status(0), stdout, "");
    let said = said(&step(&format!("run = 'x'\nstdout = {{ {expectation} }}")), &answer);
    assert_eq!(
        said.trim_start_matches("stdout"),
        if expected.is_empty() { "" } else { expected },
        "{expectation} of {stdout:?}"
    );
}

#[test]
fn texts() {
    check("equals = 'C'", "C\n", "");
    check("equals = 'C'", "C", "");
    check("equals = 'C'", "C\n\n", r#": equals "C" | "C\n""#);
    check("equals = 'C'", "c", r#": equals "C" | "c""#);
    check("equals = ''", "\n", "");
    check("equals = '{{user}}'", "anna", "");
    check("equals = '{{user}}'", "bob", r#": equals "anna" | "bob""#);
    check("equals = 5", " 5 ", "");
    check("equals = 5", "6", ": equals 5 | 6");
    check("equals = 5", "five", r#": equals 5 | "five", which is not a whole number"#);
    check("not_equals = 'C'", "D", "");
    check("not_equals = 'C'", "C", r#": not_equals "C" | "C""#);
    check("not_equals = 5", "6", "");
    check("not_equals = 5", "5", ": not_equals 5 | 5");
    check("not_equals = 5", "five", r#": not_equals 5 | "five", which is not a whole number"#);
    check("contains = '6.12'", "Linux 6.12.1", "");
    check("contains = '6.12'", "Linux guest 6.1.0", r#": contains "6.12" | "Linux guest 6.1.0""#);
    check("contains = '{{user}}'", "hello anna", "");
    check("not_contains = 'error'", "all well", "");
    check("not_contains = 'error'", "an error", r#": not_contains "error" | "an error""#);
    check("matches = '^a+$'", "aaa\n", "");
    check("matches = '^a+$'", "aab", r#": matches "^a+$" | "aab""#);
    check("matches = '\\d \"'", "x", r#": matches '\d "' | "x""#);
    check("not_matches = 'b+'", "aaa", "");
    check("not_matches = 'b+'", "abba", r#": not_matches "b+" | "abba", which has "bb""#);
    check("not_matches = '.*'", "abba", r#": not_matches ".*" | "abba""#);
}

#[test]
fn numbers() {
    check("at_most = 60", "60\n", "");
    check("at_most = 60", "61", ": at_most 60 | 61");
    check("at_most = 60", "-5", "");
    check("at_most = 60", "abc", r#": at_most 60 | "abc", which is not a whole number"#);
    check("at_most = 60", "1.5", r#": at_most 60 | "1.5", which is not a whole number"#);
    check("at_most = 60", "", r#": at_most 60 | "", which is not a whole number"#);
    check("at_least = 3", "3", "");
    check("at_least = 3", "2", ": at_least 3 | 2");
    check("at_least = 3, at_most = 5", "9", ": at_most 5 | 9");
}

#[test]
fn lines() {
    check("lines = ['a', '{{user}}']", "a\nanna\n", "");
    check("lines = ['a', 'b']", "b\na", r#": lines ["a", "b"] | "b\na""#);
    check("lines = ['a']", "a\na", r#": lines ["a"] | "a\na""#);
    check("lines = []", "", "");
    check("count = 2", "a\nb\n", "");
    check("count = 0", "", "");
    check("count = 1", "a\nb\n", r#": count 1 | "a\nb", 2 lines"#);
    check("count = 2", "a", r#": count 2 | "a", 1 line"#);
    check("every_line = '^[ab]$'", "a\nb\n", "");
    check("every_line = '^[ab]$'", "a\nc\n", r#": every_line "^[ab]$" | "c", line 2"#);
    check("every_line = 'x'", "", r#": every_line "x" | "", which has no line"#);
    check("empty = true", "\n", "");
    check("empty = true", "x", r#": empty true | "x""#);
    check("empty = false", "x", "");
    check("empty = false", "", r#": empty false | """#);
}

#[test]
fn json() {
    const ONE: &str =
        r#"{"state": "up", "n": 3, "f": 1.5, "on": true, "off": null, "l": ["a", "b"], "o": {"k": "anna"}, "e": []}"#;
    check("json = '$.state', equals = 'up'", ONE, "");
    check("json = '$.state', equals = 'down'", ONE, r#" $.state: equals "down" | "up""#);
    check("json = '$.state', contains = 'u'", ONE, "");
    check("json = '$.n', equals = 3", ONE, "");
    check("json = '$.n', equals = '3'", ONE, "");
    check("json = '$.n', equals = 4", ONE, " $.n: equals 4 | 3");
    check("json = '$.state', equals = 3", ONE, r#" $.state: equals 3 | "up""#);
    check("json = '$.on', equals = true", ONE, "");
    check("json = '$.on', equals = false", ONE, " $.on: equals false | true");
    check("json = '$.off', equals = 'null'", ONE, "");
    check("json = '$.off', empty = true", ONE, "");
    check("json = '$.l', equals = ['a', 'b']", ONE, "");
    check("json = '$.l', equals = ['a']", ONE, r#" $.l: equals ["a"] | ["a","b"]"#);
    check("json = '$.l', contains = 'b'", ONE, "");
    check("json = '$.l', contains = 'c'", ONE, r#" $.l: contains "c" | ["a","b"]"#);
    check("json = '$.l', not_contains = 'b'", ONE, r#" $.l: not_contains "b" | ["a","b"]"#);
    check("json = '$.l', count = 1", ONE, "");
    check("json = '$.l', count = 2", ONE, r#" $.l: count 2 | [["a","b"]], 1 value"#);
    check("json = '$.o', equals = { k = '{{user}}' }", ONE, "");
    check("json = '$.o', equals = { k = 'bob' }", ONE, r#" $.o: equals { k = "bob" } | {"k":"anna"}"#);
    check("json = '$', equals = { a = 1 }", r#"{"a": 1, "b": 2}"#, r#" $: equals { a = 1 } | {"a":1,"b":2}"#);
    check("json = '$', equals = { a = 1 }", r#"{"b": 1}"#, r#" $: equals { a = 1 } | {"b":1}"#);
    check("json = '$', equals = ['a']", r#"["a", "b"]"#, r#" $: equals ["a"] | ["a","b"]"#);
    check("json = '$.e', empty = true", ONE, "");
    check("json = '$.l', empty = true", ONE, r#" $.l: empty true | ["a","b"]"#);
    check("json = '$.n', at_least = 3", ONE, "");
    check("json = '$.n', at_least = 4", ONE, " $.n: at_least 4 | 3");
    check("json = '$.f', at_least = 1", ONE, r#" $.f: at_least 1 | "1.5", which is not a whole number"#);
    check("json = '$.state', matches = '^u'", ONE, "");
    check("json = '$.l', matches = '^\\[\"a'", ONE, "");
}

#[test]
fn json_with_several_values() {
    const LIST: &str = r#"[{"n": "a", "v": 1}, {"n": "ab", "v": 2}]"#;
    check("json = '$[*].n', equals = ['a', 'ab']", LIST, "");
    check("json = '$[*].n', equals = 'a'", LIST, r#" $[*].n: equals "a" | ["a","ab"]"#);
    check("json = '$[?@.v==2].n', equals = ['ab']", LIST, "");
    check("json = '$[*].n', not_equals = ['a']", LIST, "");
    check("json = '$[*].n', not_equals = ['a', 'ab']", LIST, r#" $[*].n: not_equals ["a", "ab"] | ["a","ab"]"#);
    check("json = '$[*].n', contains = 'a'", LIST, "");
    check("json = '$[*].n', contains = 'b'", LIST, r#" $[*].n: contains "b" | ["a","ab"]"#);
    check("json = '$[*].n', not_contains = 'b'", LIST, "");
    check("json = '$[*].n', not_contains = 'ab'", LIST, r#" $[*].n: not_contains "ab" | ["a","ab"]"#);
    check("json = '$[*].v', at_most = 2", LIST, "");
    check("json = '$[*].v', at_most = 1", LIST, " $[*].v: at_most 1 | 2, value 2 of 2");
    check("json = '$[*].n', matches = '^a'", LIST, "");
    check("json = '$[*].n', matches = 'b'", LIST, r#" $[*].n: matches "b" | "a", value 1 of 2"#);
    check("json = '$[*].n', count = 2", LIST, "");
    check("json = '$[*].n', empty = true", LIST, r#" $[*].n: empty true | "a", value 1 of 2"#);
    check("json = '$[*].n', empty = false", LIST, "");
}

#[test]
fn nothing_selected() {
    check("json = '$.x', equals = 'a'", "{}", r#" $.x: equals "a" | $.x selects nothing"#);
    check("json = '$.x', contains = 'a'", "{}", r#" $.x: contains "a" | $.x selects nothing"#);
    check("json = '$.x', matches = 'a'", "{}", r#" $.x: matches "a" | $.x selects nothing"#);
    check("json = '$.x', not_matches = 'a'", "{}", r#" $.x: not_matches "a" | $.x selects nothing"#);
    check("json = '$.x', at_most = 1", "{}", " $.x: at_most 1 | $.x selects nothing");
    check("json = '$.x', empty = false", "{}", " $.x: empty false | $.x selects nothing");
    check("json = '$.x', count = 1", "{}", " $.x: count 1 | $.x selects nothing");
    for holds in ["not_equals = 'a'", "not_contains = 'a'", "empty = true", "count = 0"] {
        check(&format!("json = '$.x', {holds}"), "{}", "");
    }
    let no_json = r#" $.x: not_equals "a" | "oops", which is not JSON: expected value at line 1 column 1"#;
    check("json = '$.x', not_equals = 'a'", "oops", no_json);
    check(
        "json = '$.x', empty = true",
        "",
        r#" $.x: empty true | "", which is not JSON: EOF while parsing a value at line 1 column 0"#,
    );
}

#[test]
fn html() {
    const PAGE: &str =
        "<form><input name=csrf value=abc><input name=user><h1>Sign\n  in</h1><a href=/x>one</a><a>two</a>";
    check("html = 'h1', equals = 'Sign in'", PAGE, "");
    check("html = 'h1', equals = 'Sign out'", PAGE, r#" h1: equals "Sign out" | "Sign in""#);
    check("html = 'a', equals = ['one', 'two']", PAGE, "");
    check("html = 'a', contains = 'two'", PAGE, "");
    check("html = 'a', count = 1", PAGE, r#" a: count 1 | ["one","two"], 2 values"#);
    check("html = 'a', count = 3", PAGE, r#" a: count 3 | ["one","two"], 2 values"#);
    check("html = 'a', attribute = 'href', equals = '/x'", PAGE, "");
    check("html = 'input[name=csrf]', attribute = 'value', matches = '^[a-z]{3}$'", PAGE, "");
    check("html = 'input[name=user]', attribute = 'value', empty = true", PAGE, "");
    let nothing = r#" h2: equals "x" | h2 selects nothing"#;
    check("html = 'h2', equals = 'x'", PAGE, nothing);
}

#[test]
fn exits() {
    let ends = |status| command(Exit::Status(status), "", "no such file\n");
    check_step("run = 'x'", &ends(0), "");
    check_step("run = 'x'", &ends(2), r#"exit: equals 0 | 2; stderr: "no such file""#);
    check_step("host = 'x'", &ends(2), r#"exit: equals 0 | 2; stderr: "no such file""#);
    check_step("run = 'x'\nexit = 2", &ends(2), "");
    check_step("host = 'x'\nexit = { not_equals = 0 }", &ends(2), "");
    check_step("host = 'x'\nexit = { not_equals = 0 }", &ends(0), r#"exit: not_equals 0 | 0; stderr: "no such file""#);
    check_step("run = 'x'\nexit = { at_least = 1, at_most = 3 }", &ends(3), "");
    check_step(
        "run = 'x'\nexit = { not_equals = 0 }",
        &command(Exit::Signal("KILL".into()), "", ""),
        "exit: not_equals 0 | killed by SIGKILL",
    );
    check_step("run = 'x'\nstderr = { contains = 'no such' }", &ends(0), "");
    let two = "exit: equals 0 | 1; stderr: \"no such file\"\nstdout: equals \"a\" | \"\"";
    check_step("run = 'x'\nstdout = { equals = 'a' }", &ends(1), two);
}

#[test]
fn http_answers() {
    let ask = |text: &str| format!("[step.http]\nget = '/'\n{text}");
    check_step(&ask("status = 302"), &http(""), "");
    check_step(&ask("status = 200"), &http("moved"), r#"status: equals 200 | 302; body: "moved""#);
    check_step(&ask("status = { at_least = 200, at_most = 299 }"), &http(""), "status: at_most 299 | 302");
    check_step(&ask("status = 302\nheader.Location = { contains = '/login' }"), &http(""), "");
    let location = r#"header location: equals "/" | "https://rave.local:3002/login""#;
    check_step(&ask("status = 302\nheader.location = { equals = '/' }"), &http(""), location);
    check_step(&ask("status = 302\nheader.set-cookie = { lines = ['a=1', 'b=2'] }"), &http(""), "");
    check_step(
        &ask("status = 302\nheader.server = { equals = 'x' }"),
        &http(""),
        r#"header server: equals "x" | there is no header server"#,
    );
    check_step(&ask("status = 302\nheader.server = { empty = true }"), &http(""), "");
    check_step(&ask("status = 302\nbody = { json = '$.a', equals = 1 }"), &http(r#"{"a": 1}"#), "");
    check_step(
        &ask("status = 302\nbody = [{ contains = 'a' }, { contains = 'b' }]"),
        &http("a"),
        r#"body: contains "b" | "a""#,
    );
}

#[test]
fn ports_and_measures() {
    let answers = |answered: bool, body: &str| Answer::Port { answered, body: body.into() };
    check_step("port = 9\nanswers = true", &answers(true, ""), "");
    check_step("port = 9\nanswers = true", &answers(false, ""), "answers: equals true | false");
    check_step("port = 9\nanswers = false", &answers(true, ""), "answers: equals false | true");
    check_step("port = 9\nanswers = true\nbody = { matches = '^SSH' }", &answers(true, "SSH-2.0\n"), "");
    let silent = "answers: equals true | false\nbody: not_contains \"a\" | nothing answered";
    check_step("port = 9\nanswers = true\nbody = { not_contains = 'a' }", &answers(false, ""), silent);
    let measure = "measure = 'machine.ready_seconds'\nvalue = { at_most = 900 }";
    check_step(measure, &Answer::Measure("900".into()), "");
    check_step(measure, &Answer::Measure("901".into()), "value: at_most 900 | 901");
    check_step(measure, &http(""), "value: at_most 900 | the answer has no such part");
}

#[test]
fn allowed_lines() {
    let text = "run = 'x'\nstdout = { empty = true }\n[[step.allow]]\nline = '^known'\nreason = 'bug 1'\nuntil = '2026-12-02'\n\
                [[step.allow]]\nline = '^old'\nreason = 'bug 2'\nuntil = '2026-12-01'\n";
    let answers = |stdout: &str| command(Exit::Status(0), stdout, "");
    check_step(text, &answers("known 1\nknown 2\n"), "");
    check_step(text, &answers("known 1\nnew\n"), r#"stdout: empty true | "new""#);
    let expired = r#"stdout: empty true | "old"; it has lines that line 15 allowed until 2026-12-01: bug 2"#;
    check_step(text, &answers("known 1\nold\n"), expired);
}

#[test]
fn long_texts_are_cut_but_not_inside_a_secret() {
    let cut_at = |secret_at: usize| {
        let stdout = format!("{}hunter2{}", "é".repeat(secret_at / 2), "x".repeat(2000 - secret_at - 7));
        said(&step("run = 'x'\nstdout = { contains = 'y' }"), &command(Exit::Status(0), &stdout, ""))
    };
    let left_out = |said: &str| said.contains(" bytes left out …]") && said.len() < 500;
    let whole = cut_at(20);
    assert!(left_out(&whole) && whole.contains("hunter2") && whole.contains("[… 1600 bytes left out …]"), "{whole}");
    let head = cut_at(196);
    assert!(left_out(&head) && !head.contains("hunt") && head.contains("[… 1604 bytes left out …]"), "{head}");
    let tail = cut_at(1798);
    assert!(left_out(&tail) && !tail.contains("er2"), "{tail}");
    let lossy = Answer::Port { answered: true, body: vec![0xff; 3000] };
    let said = said(&step("port = 9\nanswers = true\nbody = { contains = 'y' }"), &lossy);
    assert!(said.contains("left out"), "{said}");
}

#[test]
fn mismatches_point_into_the_file() {
    let step = step("run = 'x'\nstdout = {\n  contains = 'a',\n  matches = 'b',\n}\n");
    let lines = judge(&step, &command(Exit::Status(1), "", ""), &variables(), today());
    assert_eq!(lines.iter().map(|mismatch| mismatch.line).collect::<Vec<_>>(), [9, 11, 12]);
}

/// `taken`: the value, or what is said.
#[track_caller]
fn check_capture(text: &str, answer: &Answer, taken: &str) {
    let found = match capture(&step(text), answer) {
        Ok(taken) => taken.iter().map(|Taken { name, value, secret }| format!("{name} {secret} {value}")).collect(),
        Err(Mismatch { what, expected, actual, .. }) => format!("{what}: {expected} | {actual}"),
    };
    assert_eq!(found, taken, "{text}");
}

#[test]
fn captures() {
    let run = |stdout: &str| command(Exit::Status(0), stdout, "warning\n");
    check_capture("run = 'x'\ncapture.c = { stdout = true }", &run("abc\n"), "c false abc");
    check_capture("run = 'x'\ncapture.c = { stderr = true }", &run("abc\n"), "c false warning");
    check_capture("run = 'x'\ncapture.c = { stdout = true, matches = 'b.' }", &run("abc\n"), "c false bc");
    check_capture("run = 'x'\ncapture.c = { stdout = true, matches = 'b(.)' }", &run("abc\n"), "c false c");
    check_capture(
        "run = 'x'\ncapture.c = { stdout = true, matches = 'z' }",
        &run("abc\n"),
        r#"capture c: stdout: one value that matches "z" | "abc""#,
    );
    check_capture(
        "run = 'x'\ncapture.c = { stdout = true, matches = 'z', secret = true }",
        &run("abc\n"),
        r#"capture c: stdout: one value that matches "z" | 3 bytes"#,
    );
    check_capture(
        "run = 'x'\ncapture.c = { stdout = true }",
        &run("\n"),
        "capture c: stdout: one value | an empty value",
    );
    check_capture("run = 'x'\ncapture.c = { json = '$.id' }", &run("{\"id\": 7}"), "c false 7");
    check_capture("run = 'x'\ncapture.c = { json = '$.id', secret = true }", &run("{\"id\": \"s\"}"), "c true s");
    check_capture(
        "run = 'x'\ncapture.c = { json = '$.id' }",
        &run("{}"),
        "capture c: stdout $.id: one value | $.id selects nothing",
    );
    check_capture(
        "run = 'x'\ncapture.c = { json = '$.id' }",
        &run("{\"id\": null}"),
        "capture c: stdout $.id: one value | null",
    );
    check_capture(
        "run = 'x'\ncapture.c = { json = '$[*]' }",
        &run("[1, 2]"),
        "capture c: stdout $[*]: one value | [1,2], 2 values",
    );
    let ask = |text: &str| format!("[step.http]\nget = '/'\nstatus = 302\n{text}");
    check_capture(&ask("capture.c = { header = 'location', matches = '3002(.*)' }"), &http(""), "c false /login");
    check_capture(
        &ask("capture.c = { header = 'etag' }"),
        &http(""),
        "capture c: header etag: one value | there is no header etag",
    );
    check_capture(&ask("capture.c = { body = true }"), &http("hi"), "c false hi");
    check_capture(&ask("capture.c = { html = 'input', attribute = 'value' }"), &http("<input value=v>"), "c false v");
    check_capture(
        "port = 22\nanswers = true\ncapture.c = { body = true }",
        &Answer::Port { answered: true, body: b"SSH".into() },
        "c false SSH",
    );
}

/// What is written for a reader can be read again, and means the same.
#[track_caller]
fn check_describe(text: &str) {
    let ask = match text.split([' ', '.']).next().unwrap() {
        "exit" | "stdout" | "stderr" => "run = 'x'\n",
        "answers" => "port = 9\n",
        "value" => "measure = 'machine.rss_mib'\n",
        "status" => "[step.http]\nget = '/'\n",
        _ => "[step.http]\nget = '/'\nstatus = 200\n",
    };
    let described = step(&format!("{ask}{text}\n")).expectations.pop().unwrap().describe();
    assert_eq!(described, text);
}

#[test]
fn descriptions_can_be_read_again() {
    check_describe("exit = 3");
    check_describe("exit = { not_equals = 0 }");
    check_describe("status = 302");
    check_describe("status = { at_most = 299 }");
    check_describe("answers = false");
    check_describe("value = { at_most = 60 }");
    check_describe(r#"stdout = { equals = "C" }"#);
    check_describe(r#"stdout = { equals = "it's \"x\"\n\u0001\u007f" }"#);
    check_describe(r#"stderr = { contains = 'a "b" \d' }"#);
    check_describe(r#"stdout = { json = "$.state", equals = { a = 1, "b c" = [true, "{{user}}"] } }"#);
    check_describe(r#"body = { html = 'input[name="csrf"]', attribute = "value", empty = false }"#);
    check_describe(r#"body = { html = "a", count = 3 }"#);
    check_describe(r#"body = { lines = ["a", "b"] }"#);
    check_describe(r#"body = { every_line = '^\d+$' }"#);
    check_describe(r#"header.location = { matches = '^https://rave\.local:3002/gitlab/oauth/authorize\?' }"#);
    check_describe(r#"header."x.y" = { not_matches = "a" }"#);
    check_describe(r#"header.server = { not_contains = "nginx/" }"#);
}
