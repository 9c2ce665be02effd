//! Malformed requests, from a seed: whatever comes, there is an answer, and nothing outside the repositories is touched.

use axum::body::Body;
use axum::http::Request;
use rave_forge::app::{self, App};
use tower::ServiceExt as _;

use crate::forge::Forge;

/// How many requests, unless `FUZZ_INPUTS` says. The handlers are called without a network in between.
const ROUNDS: u32 = 3000;

const PIECES: [&str; 40] = [
    "/gitlab",
    "/api/v4",
    "/projects",
    "/1",
    "/rave%2Ffuzz",
    "/repository",
    "/commits",
    "/branches",
    "/files",
    "/raw",
    "/tree",
    "/compare",
    "/merge_requests",
    "/merge",
    "/notes",
    "/pipelines",
    "/pipeline",
    "/jobs",
    "/trace",
    "/users",
    "/groups/rave",
    "/members/all",
    "/runners",
    "/..",
    "/%2e%2e%2f",
    "/%00",
    "/%ff",
    "?ref=",
    "&per_page=",
    "?service=git-receive-pack",
    "/rave/fuzz.git",
    "/info/refs",
    "/git-upload-pack",
    "=-1",
    "9223372036854775808",
    "main",
    "'",
    "\u{fffd}",
    "%",
    "--help",
];
/// Below a project, where there is something to reach.
const PLACES: [&str; 18] = [
    "",
    "/repository/branches",
    "/repository/branches/main",
    "/repository/commits",
    "/repository/tree",
    "/repository/compare?from=main&to=",
    "/repository/files/README.md",
    "/repository/files/README.md/raw?ref=main",
    "/merge_requests",
    "/merge_requests/1",
    "/merge_requests/1/merge",
    "/merge_requests/1/notes",
    "/pipeline",
    "/pipelines",
    "/pipelines/1/jobs",
    "/jobs/1/trace",
    "/members/all",
    "/protected_branches",
];
const BODIES: [&str; 16] = [
    r#"{"branch":"b","start_branch":"main","commit_message":"m","actions":[{"action":"create","file_path":"a","content":"a"}]}"#,
    r#"{"source_branch":"b","target_branch":"main","title":"t"}"#,
    r#"{"ref":"main"}"#,
    r#"{"body":"\u202e","content":"x","commit_message":"m","branch":"main"}"#,
    "{}",
    "[]",
    "{",
    "null",
    r#"{"branch":{"a":[]},"ref":1}"#,
    r#"{"branch":"x","start_branch":"main","commit_message":"m","actions":[{"action":"create","file_path":"a\u0000b","content":1}]}"#,
    r#"{"branch":"fuzz","start_branch":"main","commit_message":"m","actions":[{"action":"create","file_path":"x/../y","content":"","encoding":"base64"}]}"#,
    r#"{"source_branch":"main","target_branch":"main","title":""}"#,
    r#"{"name":"\ud800"}"#,
    "branch=a&ref[]=b&ref=c",
    "\u{0}\u{1}\u{2}",
    r#"{"token":"x","state":"success"}"#,
];

/// A generator good enough for this (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

#[test]
fn whatever_is_asked_there_is_an_answer() {
    let forge = Forge::start();
    let project = forge.project("fuzz");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let app = App::new(forge.settings()).unwrap();
    app.set_ready();
    let router = app::router(&app);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = std::collections::BTreeMap::<u16, u32>::new();
    runtime.block_on(async {
        let rounds = std::env::var("FUZZ_INPUTS").ok().map_or(ROUNDS, |text| text.parse().unwrap());
        for round in 0..rounds {
            // By its number: a name may be another before long.
            let below = format!("/gitlab/api/v4/projects/{project}");
            let (mut path, pieces) = match random.below(6) {
                0 => ("/gitlab".to_owned(), random.below(5)),
                1 | 2 => (below, random.below(5)),
                _ => (below + random.of(&PLACES), random.below(2)),
            };
            for _ in 0..pieces {
                path.push_str(random.of(&PIECES));
            }
            let method = random.of(&["GET", "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]);
            let reached = path.split('?').next().unwrap_or_default();
            if method == "DELETE" && !reached.contains("/repository") {
                continue; // the project must stay
            }
            let body = random.of(&BODIES);
            let kind = random.of(&[
                "application/json",
                "application/json",
                "application/json",
                "application/x-www-form-urlencoded",
                "text/plain",
                "application/json; charset=\"",
                "",
            ]);
            let token = Forge::token(random.of(&["root", "dana", "otto", "nobody"]));
            let request = Request::builder()
                .method(method)
                .uri(&path)
                .header("content-type", kind)
                .header("private-token", token);
            let request = request.header(
                "authorization",
                random.of(&["Basic", "Basic Og==", "Bearer \u{fffd}", "Basic /////w=="]).as_bytes(),
            );
            let Ok(request) =
                request.header("content-range", random.of(&["0-1", "-", "999999999999-1"])).body(Body::from(body))
            else {
                continue;
            };
            // A panic in a handler would end this test here.
            let response = router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            assert!(![500, 503].contains(&status), "round {round}: {method} {path} {body}");
            *seen.entry(status).or_default() += 1;
        }
    });
    eprintln!("answered, by status: {seen:?}");
    for expected in [200, 400, 401, 404] {
        assert!(seen.contains_key(&expected), "{seen:?}");
    }
    let there: Vec<_> = std::fs::read_dir(forge.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        there.iter().all(|name| ["repositories", "log", "builds"].contains(&name.as_str())
            || name.contains('.')
            || name == "runner"),
        "{there:?}"
    );
}
