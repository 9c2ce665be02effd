//! Which rooms the bridge joins, stays in, and leaves.

use serde_json::{Value, json};

use crate::world::{GENEROUS, Options, ROOM, World, mxid};

fn membership(world: &World, sender: &str, member: &str, room: &str, membership: &str) -> Value {
    json!({ "type": "m.room.member", "sender": mxid(sender), "state_key": mxid(member), "room_id": room, "event_id": world.event_id(),
        "content": { "membership": membership } })
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_of_linked_users_are_followed_and_others_are_not() {
    let world = World::new().await;
    world.services().members.insert("!good".to_owned(), vec![mxid("rave"), mxid("dana")]);
    let invite = membership(&world, "dana", "rave", "!good", "invite");
    world.deliver(&[invite.clone(), invite.clone()]).await;
    world.deliver(&[invite]).await;
    world.until("a join", || world.services().joined.contains(&"!good".to_owned()).then_some(())).await;
    world
        .deliver(&[
            membership(&world, "eve", "rave", "!eve", "invite"),
            membership(&world, "bob", "rave", "!blocked", "invite"),
        ])
        .await;
    world.deliver(&[membership(&world, "@root:evil.example", "rave", "!evil", "invite")]).await;
    world.until("two refusals", || (world.services().left.len() == 2).then_some(())).await;
    let id = world.say_in("!good", "dana", "!rave help").await;
    world.reply(&id).await;
    assert_eq!(world.services().joined, ["!good"]);
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_with_an_outsider_is_left() {
    let world = World::new().await;
    world.services().members.insert("!mixed".to_owned(), vec![mxid("rave"), mxid("dana"), mxid("@root:evil.example")]);
    world.deliver(&[membership(&world, "dana", "rave", "!mixed", "invite")]).await;
    world.until("a leave", || world.services().left.contains(&"!mixed".to_owned()).then_some(())).await;

    // A good room does not stay one when somebody of another server is invited to it.
    world.check("dana", "!rave help", "ok").await;
    world.services().members.get_mut(ROOM).unwrap().push(mxid("@root:evil.example"));
    world.deliver(&[membership(&world, "dana", "@root:evil.example", ROOM, "invite")]).await;
    let id = world.say("dana", "!rave project create x").await;
    world.until("silence", || (world.decisions(&id) == ["received", "ended", "replied"]).then_some(())).await;
    assert!(world.services().left.contains(&ROOM.to_owned()));
    assert!(world.replies(&id).is_empty() && world.services().projects.is_empty());
    let left: Vec<Value> = world.audit().into_iter().filter(|record| record["decision"] == "left").collect();
    assert!(left.iter().all(|record| record["reason"] == "somebody of another server is in it"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_list_only_its_rooms_are_joined() {
    let world = World::with(Options { rooms: "[\"!listed\"]", ..GENEROUS }).await;
    world.services().members.extend(["!listed", "!other"].map(|room| (room.to_owned(), vec![mxid("rave")])));
    world
        .deliver(&[
            membership(&world, "dana", "rave", "!other", "invite"),
            membership(&world, "dana", "rave", "!listed", "invite"),
        ])
        .await;
    world.until("a join", || (world.services().joined == ["!listed"]).then_some(())).await;
    assert_eq!(world.services().left, ["!other"]);
    let ignored = world.say_in(ROOM, "dana", "!rave project create x").await;
    let id = world.say_in("!listed", "dana", "!rave help").await;
    world.reply(&id).await;
    assert!(world.replies(&ignored).is_empty() && world.services().projects.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_room_is_told_once() {
    let mut world = World::new().await;
    let encrypted = |world: &World| {
        json!({ "type": "m.room.encrypted", "sender": mxid("dana"), "room_id": ROOM, "event_id": world.event_id(),
            "content": { "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "!rave project create x", "body": "!rave project create x" } })
    };
    world.deliver(&[encrypted(&world), encrypted(&world)]).await;
    world.check("dana", "!rave help", "ok").await;
    world.kill().await;
    world.start().await;
    world.deliver(&[encrypted(&world)]).await;
    world.check("dana", "!rave help", "ok").await;
    let notices = world.services().sent.iter().filter(|sent| sent.content["m.relates_to"].is_null()).count();
    assert_eq!(notices, 1);
    assert!(world.services().projects.is_empty());
}
