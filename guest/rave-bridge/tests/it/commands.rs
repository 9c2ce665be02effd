//! What each command does when all is well.

use serde_json::{Value, json};

use crate::world::{ROOM, Reply, World};

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_in_a_notice_tied_to_the_event() {
    let world = World::new().await;
    let id = world.say("dana", "!rave whoami").await;
    let Reply { room, text, content, .. } = world.reply(&id).await;
    assert_eq!((room.as_str(), text.as_str()), (ROOM, "You are dana at the forge, with the role developer."));
    let expected = json!({
        "msgtype": "m.notice",
        "body": "You are dana at the forge, with the role developer.",
        "m.mentions": {},
        "m.relates_to": { "m.in_reply_to": { "event_id": id } },
        "org.rave.reply": { "schema": 1, "command_id": id, "verb": "whoami", "code": "ok", "links": [] },
    });
    assert_eq!(content, expected);

    let help = world.check("otto", "!rave help", "ok").await;
    assert_eq!(help.text.lines().count(), 14);
    let help = world.check("otto", "!rave help sandbox", "ok").await;
    assert_eq!(help.text.lines().count(), 3);
    world.check("otto", "!rave help nothing", "unknown_command").await;
    let status = world.check("gus", "!rave status", "ok").await;
    assert_eq!(status.text, "Bridge up, chat up, forge up, sandboxes up (0 running), 0 of 9 agents running.");
    world.check("mara", "!rave pm plan", "unknown_command").await;
    world.check("mara", "!rave project status nothing", "not_found").await;
    world.check("vera", "!rave sandbox list", "ok").await;
    world.until("a ping", || (world.services().pings > 0).then_some(())).await;
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn project_create_makes_a_project_from_the_template_with_a_merge_request() {
    let world = World::new().await;
    let id = world.say("dana", "!rave create project hello").await;
    let done = world.reply(&id).await;
    assert_eq!((done.code.as_str(), done.verb.as_str()), ("done", "project create"), "{}", done.text);
    assert_eq!(done.links, ["https://forge/rave/hello", "https://forge/rave/hello/-/merge_requests/1"]);
    let codes: Vec<String> = world.replies(&id).into_iter().map(|reply| reply.code).collect();
    assert_eq!(codes, ["accepted", "done"]);
    world.decided(&id, &["received", "started", "progress", "ended", "replied"]).await;
    {
        let services = world.services();
        let project = &services.projects[0];
        assert_eq!(project.description, format!("Requested by dana through Matrix (account 2, command {id})."));
        let files = |commit: &Value| -> Vec<(String, String)> {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            commit["actions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|action| (text(&action["file_path"]), text(&action["content"])))
                .collect()
        };
        let expected: Vec<(String, String)> = rave_bridge::template::MAIN_FILES
            .iter()
            .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
            .collect();
        assert_eq!((project.commits[0]["branch"].as_str(), files(&project.commits[0])), (Some("main"), expected));
        assert_eq!(
            (project.commits[1]["branch"].as_str(), project.commits[1]["start_branch"].as_str()),
            (Some("hello"), Some("main"))
        );
        assert_eq!(
            files(&project.commits[1])[0],
            ("hello".to_owned(), "#!/bin/sh\n# Says hello.\necho \"Hello from hello!\"\n".to_owned())
        );
        assert!(
            project.commits[0]["commit_message"]
                .as_str()
                .unwrap()
                .ends_with(&format!("\n\nRequested-by: dana <@dana:rave.local>\nMatrix-Command: {id}\n"))
        );
        assert_eq!(
            (project.requests[0]["source_branch"].as_str(), project.requests[0]["target_branch"].as_str()),
            (Some("hello"), Some("main"))
        );
    }
    world.check("dana", "!rave project create hello", "conflict").await;
    let status = world.check("vera", "!rave project status hello", "ok").await;
    assert_eq!(status.text, "rave/hello: open merge requests: !1; main: no pipeline yet.");
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_lives_from_its_command_to_the_end_of_its_merge_request() {
    let world = World::new().await;
    world.check("dana", "!rave project create hello", "done").await;
    world.check("dana", "!rave sandbox start hello 2", "not_found").await;
    world.check("dirk", "!rave sandbox start hello 1", "failed").await; // no key
    let id = world.say("dana", "!rave sandbox start hello 1").await;
    let ready = world.reply(&id).await;
    assert_eq!(ready.code, "done", "{}", ready.text);
    assert_eq!(
        ready.links,
        ["ssh://127.0.0.1:2200", "http://127.0.0.1:3100/", "https://forge/rave/hello/-/merge_requests/1"]
    );
    let place = "Sandbox sb-1 of dana is ready: ssh://127.0.0.1:2200 http://127.0.0.1:3100/";
    assert!(ready.text.starts_with(place));
    assert!(world.services().notes[0].starts_with(place), "the note says the same");
    assert_eq!(world.check("vera", "!rave sandbox list", "ok").await.text, "sb-1: rave/hello !1, ready, for dana");
    world.check("dana", "!rave sandbox start hello 1", "conflict").await;
    world.check("vera", "!rave sandbox stop sb-1", "denied").await;
    world.check("dirk", "!rave sandbox stop sb-1", "denied").await;
    world.check("dirk", "!rave sandbox stop sb-9", "not_found").await;

    world.services().projects[0].requests[0]["state"] = json!("merged");
    let ended = |id: &str| world.replies(id).into_iter().find(|reply| reply.verb == "sandbox ended");
    let last = world.until("the final notice", || ended(&id)).await;
    assert_eq!(
        (last.code.as_str(), last.text.as_str()),
        ("ok", "Sandbox sb-1 has ended: the merge request was merged.")
    );
    assert!(world.services().sandboxes.is_empty());
    world.check("dana", "!rave sandbox start hello 1", "conflict").await; // merged

    world.services().projects[0].requests[0]["state"] = json!("opened");
    let id = world.say("dana", "!rave sandbox start hello 1").await;
    assert_eq!(world.reply(&id).await.code, "done");
    world.check("mara", "!rave sandbox stop sb-2", "done").await;
    let last = world.until("the final notice", || ended(&id)).await;
    assert_eq!(last.text, "Sandbox sb-2 has ended: mara stopped it.");
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_exactly_nine_units() {
    let world = World::new().await;
    let list = world.check("vera", "!rave agent list", "ok").await;
    assert_eq!(list.text.lines().count(), 9);
    world.check("vera", "!rave agent start coder", "denied").await;
    world.check("dana", "!rave agent start coder", "ok").await;
    assert_eq!(world.check("vera", "!rave agent status coder", "ok").await.text, "coder: active");
    world.check("dana", "!rave agent stop coder", "ok").await;
    assert_eq!(world.check("vera", "!rave agent status coder", "ok").await.text, "coder: inactive");
    world.check("dana", "!rave agent start boss", "bad_arguments").await;
    let changing: Vec<Vec<String>> = world.argv().into_iter().filter(|words| words[1] != "list-units").collect();
    let expected = ["start", "stop"]
        .map(|verb| vec!["--no-ask-password".to_owned(), verb.to_owned(), "rave-agent@coder.service".to_owned()]);
    assert_eq!(changing, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn deploying_takes_two_steps_of_one_person_in_one_room() {
    let world = World::new().await;
    world.check("dana", "!rave project create hello", "done").await;
    world.check("dana", "!rave deploy hello", "denied").await;
    world.check("mara", "!rave deploy nothing", "not_found").await;
    let asked = world.check("mara", "!rave deploy hello", "confirm").await;
    let confirm = &asked.text[asked.text.find("!rave confirm ").unwrap()..];
    world.check("mara", "!rave confirm 0123456789abcdef", "not_found").await;
    world.check("dana", confirm, "denied").await;
    world.services().members.insert("!other".to_owned(), vec![]);
    let elsewhere = world.say_in("!other", "mara", confirm).await;
    assert_eq!(world.reply(&elsewhere).await.code, "not_found");
    assert!(world.services().projects[0].pipelines.is_empty());
    let done = world.check("mara", confirm, "done").await;
    assert_eq!(
        (done.text.as_str(), done.links),
        ("hello: pipeline 1 runs on main, now created.", vec!["https://forge/p".to_owned()])
    );
    world.check("mara", confirm, "not_found").await;
    assert_eq!(world.services().projects[0].pipelines.len(), 1);
}
