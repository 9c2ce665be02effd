//! The bridge's port: who gets in, and with what; and what the program says before it serves.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::fakes::{AS_TOKEN, HS_TOKEN};
use crate::world::{ROOM, World, answered, mxid};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_homeserver_gets_in() {
    let mut world = World::new().await;
    let event = world.message(&mxid("dana"), ROOM, "!rave project create x");
    let body = json!({ "events": [event] });
    let put = |path: &str| world.request(Method::PUT, path).json(&body);
    let plain = || put("transactions/1");
    for (request, status) in [
        (plain(), 401),
        (plain().header("authorization", ""), 403),
        (plain().bearer_auth("wrong"), 403),
        (plain().bearer_auth(AS_TOKEN), 403),
        (plain().bearer_auth(HS_TOKEN.to_uppercase()), 403),
        (plain().bearer_auth(&HS_TOKEN[1..]), 403),
        (plain().header("authorization", format!("bearer {HS_TOKEN}")), 403),
        (plain().header("authorization", format!("Basic {HS_TOKEN}")), 403),
        (put(&format!("transactions/1?access_token={HS_TOKEN}")), 403),
        (put(&format!("transactions/1?access_token={HS_TOKEN}")).bearer_auth(HS_TOKEN), 403),
        (plain().bearer_auth(HS_TOKEN).header("authorization", "Bearer x"), 403),
        (world.request(Method::POST, "ping"), 401),
        (world.request(Method::GET, "nowhere"), 401),
        // Not read: it is no JSON, and would be told so.
        (world.request(Method::PUT, "transactions/1").bearer_auth("wrong").body("{"), 403),
    ] {
        let (found, body) = answered(request).await;
        assert_eq!(found, status, "{body}");
        assert!(body["errcode"].is_string());
    }
    let inside = |method: Method, path: &str| world.request(method, path).bearer_auth(HS_TOKEN);
    assert_eq!(answered(inside(Method::POST, "ping").json(&json!({ "transaction_id": "a" }))).await, (200, json!({})));
    for path in ["users/@a:rave.local", "rooms/%23a:rave.local"] {
        let (status, body) = answered(inside(Method::GET, path)).await;
        assert_eq!((status, body["errcode"].as_str()), (404, Some("M_NOT_FOUND")));
    }
    assert_eq!(answered(inside(Method::GET, "nowhere")).await.0, 404);
    assert_eq!(answered(inside(Method::GET, "ping")).await.0, 405);
    world.check("dana", "!rave whoami", "ok").await;
    assert!(world.services().projects.is_empty());
    let refusals = world.audit().into_iter().filter(|record| record["decision"] == "http").count();
    assert_eq!(refusals, 14);
    world.verify().await;
    assert!(world.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_transaction() {
    let mut world = World::new().await;
    let deep = format!("{{\"events\":{}", "[".repeat(400_000));
    for (body, status, code) in [
        ("", 400, "M_NOT_JSON"),
        ("{\"events\":[", 400, "M_NOT_JSON"),
        (deep.as_str(), 400, "M_NOT_JSON"),
        ("[]", 400, "M_BAD_JSON"),
        ("{\"events\":{}}", 400, "M_BAD_JSON"),
        ("{\"events\":null}", 400, "M_BAD_JSON"),
    ] {
        let (found, answer) = world.put("1", body.as_bytes().to_vec()).await;
        assert_eq!((found, answer["errcode"].as_str()), (status, Some(code)));
    }
    world.check("dana", "!rave whoami", "ok").await;
    let record = world.audit().into_iter().find(|record| record["decision"] == "http").unwrap();
    assert_eq!(record["body"]["length"], 0);
    assert!(world.is_alive());
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_event_in_a_batch() {
    let world = World::new().await;
    let (first, last) =
        (world.message(&mxid("dana"), ROOM, "!rave whoami"), world.message(&mxid("mara"), ROOM, "!rave whoami"));
    for bad in [Value::Null, json!({ "type": "m.room.message", "content": null }), json!([]), json!({ "type": 1 })] {
        let (first, last) = (renamed(&world, &first), renamed(&world, &last));
        world.deliver(&[first.clone(), bad, last.clone()]).await;
        for event in [first, last] {
            assert_eq!(world.reply(event["event_id"].as_str().unwrap()).await.code, "ok");
        }
    }
    world.verify().await;
}

fn renamed(world: &World, event: &Value) -> Value {
    let mut event = event.clone();
    event["event_id"] = json!(world.event_id());
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn too_long_a_body_is_refused_and_a_transaction_is_not_kept_back_for_ever() {
    let mut world = World::new().await;
    let filler = "x".repeat(60_000);
    let mut events: Vec<Value> = (0..35).map(|_| world.message(&mxid("eve"), ROOM, &filler)).collect();
    let command = world.message(&mxid("dana"), ROOM, "!rave whoami");
    events.push(command.clone());
    let body = json!({ "events": events }).to_string().into_bytes();
    assert!(body.len() > 2 * 1024 * 1024);
    assert_eq!(world.put("1", body.clone()).await.0, 413);
    assert_eq!(world.put("2", vec![b' '; 9 * 1024 * 1024]).await.0, 413);
    assert_eq!(world.put("2", vec![b' '; 9 * 1024 * 1024]).await.0, 413);
    // The homeserver sends what was refused again, and nothing else before it.
    assert_eq!(world.put("1", body).await.0, 200);
    assert_eq!(world.reply(command["event_id"].as_str().unwrap()).await.code, "ok");
    assert!(world.is_alive());
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_secrets_and_logs_end_the_start_with_the_reason() {
    let mut world = World::new().await;
    assert!(serve(&world, 1).await.contains("is in use by another bridge"));
    assert!(world.run(&["check"]).await.status.success());
    world.kill().await;

    let settings = fs::read_to_string(world.path("bridge.toml")).unwrap();
    let with = |from: &str, to: &str| fs::write(world.path("bridge.toml"), settings.replace(from, to)).unwrap();
    with("127.0.0.1:0", "0.0.0.0:9000");
    assert!(serve(&world, 78).await.contains("`listen` is 0.0.0.0:9000; it must be a loopback address"));
    with("[limits]", "[limits]\nwhim = 1");
    assert!(serve(&world, 78).await.contains("unknown field `whim`"));
    with("", "");
    for (name, content, reason) in [
        ("hs", "${HS_TOKEN}", "holds a placeholder"),
        ("as", "/run/secrets/as-token-of-the-bridge-in-a-file", "holds a path"),
        ("forge", "short", "has 5 characters"),
        ("audit", "", "has 0 characters"),
    ] {
        let good = fs::read(world.path(name)).unwrap();
        let write = |content: &[u8]| {
            fs::remove_file(world.path(name)).unwrap();
            fs::write(world.path(name), content).unwrap();
            fs::set_permissions(world.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        };
        write(content.as_bytes());
        assert!(serve(&world, 78).await.contains(reason), "{name}");
        write(&good);
    }

    let log = fs::read_to_string(world.path("audit.jsonl")).unwrap();
    fs::write(world.path("audit.jsonl"), log.replacen("rave-bridge", "rave-brigde", 1)).unwrap();
    let said = serve(&world, 78).await;
    assert!(said.contains("audit.jsonl:1: the hash does not fit"), "{said}");
    let verify = world.run(&["audit", "verify"]).await;
    assert_eq!(verify.status.code(), Some(1));
    fs::write(world.path("audit.jsonl"), log + "{\"seq\":2,\"ti").unwrap();
    world.start().await;
    world.check("dana", "!rave whoami", "ok").await;
    world.verify().await;
}

/// What the program says when it does not start.
async fn serve(world: &World, status: i32) -> String {
    let output = world.run(&["serve"]).await;
    assert_eq!(output.status.code(), Some(status));
    String::from_utf8(output.stderr).unwrap()
}

/// Whatever is thrown at it, the bridge stays small. The most it ever held is what the kernel says.
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_small() {
    let mut world = World::new().await;
    let most = |world: &World| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let at_rest = most(&world);
    for user in ["dana", "mara", "vera", "gus"] {
        let events: Vec<Value> = (0..100).map(|_| world.message(&mxid(user), ROOM, "!rave status")).collect();
        world.deliver(&events).await;
        world.reply(events[99]["event_id"].as_str().unwrap()).await;
    }
    let busy = most(&world);
    let filler = "x".repeat(60_000);
    let events: Vec<Value> = (0..100).map(|_| world.message(&mxid("eve"), ROOM, &filler)).collect();
    let body = json!({ "events": events }).to_string().into_bytes();
    assert_eq!(world.put("big", body.clone()).await.0, 413);
    assert_eq!(world.put("big", body).await.0, 200);
    let flooded = most(&world);
    println!("at rest {at_rest} kB, after 400 commands {busy} kB, after a transaction of 6 MB {flooded} kB");
    assert!(busy < 30 * 1024, "{busy} kB");
    assert!(flooded < 60 * 1024, "{flooded} kB");
    assert!(world.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_when_told() {
    let mut world = World::new().await;
    world.check("dana", "!rave whoami", "ok").await;
    let told = tokio::process::Command::new("kill").arg(world.pid().to_string()).status().await.unwrap();
    assert!(told.success() && world.ended().await.success());
    world.verify().await;
}
