//! Who may not, and what must not happen. Each test ends with a command that still works, and with an unbroken log.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{ROOM, STRICT, World, mxid};

/// A later valid command works, the log is whole.
async fn still_works(world: &mut World) {
    world.check("dana", "!rave whoami", "ok").await;
    assert!(world.is_alive());
    world.verify().await;
}

fn nothing_made(world: &World) {
    assert!(world.services().projects.is_empty());
    assert!(world.argv().iter().all(|words| words[1] == "list-units"));
    assert!(!world.path("canary").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn unlinked_sender() {
    let mut world = World::new().await;
    let id = world.say("eve", "!rave project create x").await;
    assert_eq!(world.reply(&id).await.code, "not_linked");
    world.decided(&id, &["received", "ended", "replied"]).await;
    nothing_made(&world);
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookalike() {
    let mut world = World::new().await;
    {
        let mut services = world.services();
        services.users.insert(21, ("root".to_owned(), "active".to_owned()));
        services.levels.insert(21, 50);
        services.external.insert(mxid("root"), "21".to_owned());
        services.users.insert(22, ("other".to_owned(), "active".to_owned()));
        services.external.insert(mxid("root1"), "22".to_owned());
    }
    let reply = world.check("root1", "!rave whoami", "ok").await;
    assert_eq!(reply.text, "You are other at the forge, with the role no role.");
    let display_name = json!({ "displayname": "root" });
    let mut event = world.message(&mxid("root1"), ROOM, "!rave project create x");
    event["unsigned"] = display_name;
    world.deliver(std::slice::from_ref(&event)).await;
    assert_eq!(world.reply(event["event_id"].as_str().unwrap()).await.code, "denied");
    nothing_made(&world);
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_server() {
    let mut world = World::new().await;
    world.services().external.insert("@root:evil.example".to_owned(), "1".to_owned());
    let id = world.say("@root:evil.example", "!rave project create x").await;
    assert_eq!(world.decisions(&id), ["ignored"]);
    still_works(&mut world).await;
    assert!(world.replies(&id).is_empty());
    nothing_made(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn low_role() {
    let mut world = World::new().await;
    for (user, command) in [
        ("vera", "project create x"),
        ("gus", "project create x"),
        ("gus", "agent start coder"),
        ("vera", "agent stop coder"),
        ("vera", "sandbox start x 1"),
        ("otto", "status"),
        ("otto", "agent list"),
        ("dana", "deploy x"),
        ("dana", "confirm 00"),
        ("bob", "help"),
    ] {
        world.check(user, &format!("!rave {command}"), "denied").await;
    }
    nothing_made(&world);
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn role_revoked() {
    let mut world = World::new().await;
    world.check("dirk", "!rave project create one", "done").await;
    world.services().levels.insert(7, 10);
    world.check("dirk", "!rave project create two", "denied").await;
    world.services().users.insert(7, ("dirk".to_owned(), "blocked".to_owned()));
    world.check("dirk", "!rave help", "denied").await;
    assert_eq!(world.services().projects.len(), 1);
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn injection() {
    let mut world = World::new().await;
    let canary = world.path("canary").display().to_string();
    let words = [
        format!("x;touch {canary}"),
        format!("$(touch {canary})"),
        format!("`touch {canary}`"),
        format!("x|touch {canary}"),
        format!("x && touch {canary}"),
        format!("x > {canary}"),
        "../x".to_owned(),
        "%2e%2e".to_owned(),
        "x\r\ny".to_owned(),
        "x\0".to_owned(),
        "--force".to_owned(),
        "-x".to_owned(),
        "х".to_owned(), // Cyrillic
        "x\u{200f}".to_owned(),
        "<b>x</b>".to_owned(),
        "&lt;".to_owned(),
    ];
    for word in words {
        for command in ["project create", "agent start", "agent stop", "sandbox stop", "deploy", "project status"] {
            world.check("mara", &format!("!rave {command} {word}"), "bad_arguments").await;
        }
    }
    nothing_made(&world);
    assert!(world.argv().is_empty(), "nothing was run");
    let refused = world.audit().into_iter().find(|record| record["code"] == "bad_arguments").unwrap();
    assert!(refused["body"]["sha256"].is_string() && refused["args"].is_null(), "{refused}");
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_and_redaction() {
    let mut world = World::new().await;
    let mut edit = world.message(&mxid("dana"), ROOM, "!rave project create x");
    edit["content"]["m.new_content"] = json!({ "msgtype": "m.text", "body": "!rave project create x" });
    edit["content"]["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": "$old" });
    let mut starred = world.message(&mxid("dana"), ROOM, " * !rave project create x");
    starred["content"]["m.new_content"] = json!({ "msgtype": "m.text", "body": "!rave project create x" });
    let mut redacted = world.message(&mxid("dana"), ROOM, "");
    redacted["content"] = json!({});
    world.deliver(&[edit.clone(), starred, redacted]).await;
    assert_eq!(world.decisions(edit["event_id"].as_str().unwrap()), ["ignored"]);
    still_works(&mut world).await;
    nothing_made(&world);

    // What was accepted goes on when its message is taken back.
    let id = world.say("dana", "!rave project create y").await;
    let redaction = json!({ "type": "m.room.redaction", "sender": mxid("dana"), "room_id": ROOM, "event_id": world.event_id(), "redacts": id, "content": { "redacts": id } });
    world.deliver(&[redaction]).await;
    assert_eq!(world.reply(&id).await.code, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_echo_and_other_bots() {
    let mut world = World::new().await;
    let own = world.message(&mxid("rave"), ROOM, "!rave project create x");
    let mut notice = world.message(&mxid("dana"), ROOM, "!rave project create x");
    notice["content"]["msgtype"] = json!("m.notice");
    world.deliver(&[own.clone(), notice.clone()]).await;
    for event in [&own, &notice] {
        assert_eq!(world.decisions(event["event_id"].as_str().unwrap()), ["ignored"]);
    }
    still_works(&mut world).await;
    nothing_made(&world);
    assert_eq!(world.services().sent.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized() {
    let mut world = World::new().await;
    world.check("dana", &format!("!rave {}", "a".repeat(995)), "too_long").await;
    world.check("dana", &format!("!rave {}", "a ".repeat(30_000)), "too_long").await;
    let events: Vec<Value> = (0..100).map(|_| world.message(&mxid("dana"), ROOM, "!rave whoami")).collect();
    world.deliver(&events).await;
    for event in &events {
        assert_eq!(world.reply(event["event_id"].as_str().unwrap()).await.code, "ok");
    }
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay() {
    let mut world = World::new().await;
    let create = world.message(&mxid("dana"), ROOM, "!rave project create x");
    let id = create["event_id"].as_str().unwrap().to_owned();
    let once = std::slice::from_ref(&create);
    world.deliver_as("7", once).await;
    world.deliver_as("7", once).await;
    world.deliver_as("8", &[create.clone(), create.clone()]).await;
    assert_eq!(world.reply(&id).await.code, "done");
    world.kill().await;
    world.start().await;
    world.deliver_as("7", once).await;
    world.deliver_as("9", once).await;
    still_works(&mut world).await;
    assert_eq!(world.services().projects.len(), 1);
    let codes: Vec<String> = world.replies(&id).into_iter().map(|reply| reply.code).collect();
    assert_eq!(codes, ["accepted", "done"]);
    assert_eq!(world.decisions(&id).iter().filter(|decision| *decision == "received").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_numbers_start_again() {
    let mut world = World::new().await;
    for (txn, word) in [("1", "a"), ("2", "b"), ("1", "c"), ("2", "d")] {
        let event = world.message(&mxid("dana"), ROOM, &format!("!rave project create {word}"));
        world.deliver_as(txn, std::slice::from_ref(&event)).await;
        assert_eq!(world.reply(event["event_id"].as_str().unwrap()).await.code, "done");
    }
    assert_eq!(world.services().projects.len(), 4);
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flood() {
    let mut world = World::with(STRICT).await;
    let events: Vec<Value> = (0..100).map(|_| world.message(&mxid("dirk"), ROOM, "!rave project status x")).collect();
    world.deliver(&events).await;
    let started = Instant::now();
    let answer = world.check("dana", "!rave whoami", "ok").await;
    assert_eq!(answer.text, "You are dana at the forge, with the role developer.");
    println!("answered beside a flood in {:?}", started.elapsed());
    let ids: Vec<&str> = events.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
    for id in &ids[..5] {
        assert_eq!(world.reply(id).await.code, "not_found");
    }
    let slow = world.reply(ids[5]).await;
    assert_eq!(slow.code, "rate_limited");
    assert!(slow.content["org.rave.reply"]["retry_after_ms"].as_u64().unwrap() <= 2000);
    assert!(ids[6..].iter().all(|id| world.decisions(id) == ["refused"] && world.replies(id).is_empty()));
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_denials_are_met_with_silence() {
    let mut world = World::with(STRICT).await;
    for _ in 0..5 {
        world.check("eve", "!rave help", "not_linked").await;
    }
    let id = world.say("eve", "!rave help").await;
    assert_eq!(world.decisions(&id), ["refused"]);
    still_works(&mut world).await;
    assert!(world.replies(&id).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn confused_deputy() {
    let mut world = World::new().await;
    world.check("dana", "!rave project create secret", "done").await;
    world.services().projects[0].hidden = true;
    for command in ["project status secret", "sandbox start secret 1"] {
        let hidden = world.check("dana", &format!("!rave {command}"), "not_found").await;
        let missing = world.check("dana", &format!("!rave {}", command.replace("secret", "absent")), "not_found").await;
        assert_eq!(hidden.text.replace("secret", "absent"), missing.text, "the answer tells nothing");
    }
    world.check("mara", "!rave deploy secret", "not_found").await;
    assert_eq!(world.services().sandboxes_made, 0);
    still_works(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_away() {
    let mut world = World::new().await;
    world.check("dana", "!rave project create x", "done").await;
    world.services().forge_down = true;
    let started = Instant::now();
    world.check("dana", "!rave project create y", "backend_unavailable").await;
    world.check("dana", "!rave help", "backend_unavailable").await;
    assert!(started.elapsed() < Duration::from_secs(30));
    world.services().forge_down = false;
    world.check("dana", "!rave help", "ok").await;

    world.services().directory_down = true;
    world.check("dana", "!rave agent start coder", "backend_unavailable").await;
    world.services().directory_down = false;
    world.check("dana", "!rave help", "ok").await;

    world.services().sandbox_down = true;
    world.check("dana", "!rave sandbox list", "backend_unavailable").await;
    world.check("dana", "!rave sandbox start x 1", "backend_unavailable").await;
    world.check("dana", "!rave status", "ok").await;
    world.services().sandbox_down = false;

    // Without the homeserver the answer waits.
    world.services().homeserver_down = true;
    let id = world.say("dana", "!rave whoami").await;
    world.until("the end", || world.decisions(&id).contains(&"ended".to_owned()).then_some(())).await;
    world.services().homeserver_down = false;
    assert_eq!(world.reply(&id).await.code, "ok");
    assert!(world.argv().iter().all(|words| words[1] == "list-units"));
    assert_eq!(world.services().projects.len(), 1);
    still_works(&mut world).await;
}
