//! SIGKILL in the middle of every step: whatever request of the bridge is under way, and whether it had its effect or not, the command
//! ends exactly once after the next start.

use serde_json::json;

use crate::fakes::Gate;
use crate::world::World;

/// More requests than any command makes.
const MANY: usize = 60;

/// Kills the bridge at each request of a command in turn, until the command makes no more; `check` looks at what there is in the end.
async fn killed_at_every_request(user: &str, prepare: impl AsyncFn(&World) -> String, check: impl Fn(&World, &str)) {
    let mut steps = 0;
    for after in [false, true] {
        for at in 0..MANY {
            let mut world = World::new().await;
            world.until("a ping", || (world.services().pings > 0).then_some(())).await;
            let command = prepare(&world).await;
            {
                let mut services = world.services();
                let gate = Gate { at: services.requests.len() + at, after };
                services.gate = Some(gate);
            }
            let id = world.say(user, &command).await;
            let ended = |world: &World| world.decisions(&id).contains(&"replied".to_owned());
            let held_up = world
                .until("the gate or the end", || {
                    (world.services().held_up || ended(&world)).then(|| world.services().held_up)
                })
                .await;
            if !held_up {
                break;
            }
            steps += 1;
            world.kill().await;
            world.services().gate = None;
            world.start().await;
            let reply = world.reply(&id).await;
            world.until("the end", || ended(&world).then_some(())).await;
            let seen = world.services().requests.join("\n");
            assert!(["done", "failed"].contains(&reply.code.as_str()), "killed at {at}: {reply:?}\n{seen}");
            // The homeserver sends it again, and nothing comes of it.
            let mut event = world.message(&crate::world::mxid(user), crate::world::ROOM, &command);
            event["event_id"] = json!(id);
            world.deliver(&[event]).await;
            world.check(user, "!rave whoami", "ok").await;
            let terminal: Vec<_> = world
                .replies(&id)
                .into_iter()
                .filter(|reply| reply.code != "accepted" && reply.verb != "sandbox ended")
                .collect();
            assert_eq!(terminal.len(), 1, "killed at {at}: {terminal:?}");
            let ends = world.decisions(&id).iter().filter(|decision| *decision == "ended").count();
            assert_eq!(ends, 1, "killed at {at}");
            check(&world, &reply.code);
            world.verify().await;
        }
    }
    assert!(steps > 10, "only {steps} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn project_create() {
    killed_at_every_request(
        "dana",
        async |_| "!rave project create hello".to_owned(),
        |world, code| {
            let services = world.services();
            assert_eq!(code, "done");
            assert_eq!(services.projects.len(), 1);
            assert_eq!((services.projects[0].commits.len(), services.projects[0].requests.len()), (2, 1));
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_start() {
    let prepare = async |world: &World| {
        world.check("dana", "!rave project create hello", "done").await;
        world
            .until("the end", || world.audit().iter().any(|record| record["decision"] == "replied").then_some(()))
            .await;
        "!rave sandbox start hello 1".to_owned()
    };
    killed_at_every_request("dana", prepare, |world, code| {
        assert_eq!(code, "done");
        assert_eq!(world.services().sandboxes_made, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy() {
    let prepare = async |world: &World| {
        world.check("dana", "!rave project create hello", "done").await;
        let asked = world.check("mara", "!rave deploy hello", "confirm").await;
        let replied = |world: &World| world.audit().iter().filter(|record| record["decision"] == "replied").count();
        world.until("the end", || (replied(world) == 2).then_some(())).await;
        asked.text[asked.text.find("!rave confirm ").unwrap()..].to_owned()
    };
    // Until it is begun, a confirmation is lost with the nonce; then nothing was deployed.
    let mut lost = 0;
    let mut done = 0;
    for after in [false, true] {
        for at in 0..MANY {
            let mut world = World::new().await;
            world.until("a ping", || (world.services().pings > 0).then_some(())).await;
            let command = prepare(&world).await;
            {
                let mut services = world.services();
                services.gate = Some(Gate { at: services.requests.len() + at, after });
            }
            let id = world.say("mara", &command).await;
            let ended = |world: &World| world.decisions(&id).contains(&"replied".to_owned());
            if !world
                .until("the gate or the end", || {
                    (world.services().held_up || ended(&world)).then(|| world.services().held_up)
                })
                .await
            {
                break;
            }
            world.kill().await;
            world.services().gate = None;
            world.start().await;
            let reply = world.reply(&id).await;
            let pipelines = world.services().projects[0].pipelines.len();
            match reply.code.as_str() {
                "done" => done += 1,
                "not_found" => lost += 1,
                code => panic!("killed at {at}: {code}: {}", reply.text),
            }
            assert_eq!(pipelines, usize::from(reply.code == "done"), "killed at {at}");
        }
    }
    assert!(lost > 0 && done > 5, "{lost} lost, {done} done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_ended_while_the_bridge_was_away_is_told_of() {
    let mut world = World::new().await;
    world.check("dana", "!rave project create hello", "done").await;
    let id = world.say("dana", "!rave sandbox start hello 1").await;
    assert_eq!(world.reply(&id).await.code, "done");
    world.kill().await;
    world.services().sandboxes.clear();
    world.start().await;
    let ended = || world.replies(&id).into_iter().find(|reply| reply.verb == "sandbox ended");
    assert_eq!(world.until("the final notice", ended).await.text, "Sandbox sb-1 has ended: it was stopped.");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_load() {
    let mut world = World::new().await;
    let mut ids = vec![];
    for round in 0..6 {
        for number in 0..4 {
            ids.push(world.say("dana", &format!("!rave project create p-{round}-{number}")).await);
            ids.push(world.say("mara", "!rave whoami").await);
        }
        world.kill().await;
        world.start().await;
    }
    for id in &ids {
        let code = world.reply(id).await.code;
        assert!(["done", "ok"].contains(&code.as_str()), "{code}");
    }
    assert_eq!(world.services().projects.len(), 24);
    assert!(world.services().projects.iter().all(|project| project.commits.len() == 2 && project.requests.len() == 1));
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_open_waits_for_services_that_start_later() {
    let mut world = World::new().await;
    world.until("a ping", || (world.services().pings > 0).then_some(())).await;
    {
        let mut services = world.services();
        services.gate = Some(Gate { at: services.requests.len() + 10, after: true });
    }
    let begun = world.say("dana", "!rave project create hello").await;
    world.until("the gate", || world.services().held_up.then_some(())).await;
    assert_eq!(world.services().projects.len(), 1, "half of it is made");
    world.kill().await;
    {
        let mut services = world.services();
        services.gate = None;
        services.forge_down = true;
        services.directory_down = true;
        services.homeserver_down = true;
    }
    world.start().await;
    let asked = world.say("mara", "!rave whoami").await;
    world.services().homeserver_down = false;
    assert_eq!(world.reply(&asked).await.code, "backend_unavailable");
    assert!(!world.decisions(&begun).contains(&"ended".to_owned()));
    world.services().directory_down = false;
    world.services().forge_down = false;
    assert_eq!(world.reply(&begun).await.code, "done");
    let services = world.services();
    assert_eq!((services.projects[0].commits.len(), services.projects[0].requests.len()), (2, 1));
}
