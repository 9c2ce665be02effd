//! Anything at all, from a seed that is written down: nothing panics, and the bridge goes on.

use rave_bridge::command::{self, Parsed};
use rave_bridge::intake::{self, Own};
use serde_json::json;

use crate::world::{ROOM, World, mxid};

const SEED: u64 = 0x5eed_0f4a_7e00;
const OWN: Own<'static> = Own { user_id: "@rave:rave.local", server_name: "rave.local" };

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

#[test]
fn a_million_messages() {
    const PIECES: [&str; 34] = [
        "!rave", " ", " ", " ", "help", "project", "create", "status", "sandbox", "start", "stop", "list", "agent",
        "coder", "deploy", "confirm", "whoami", "1", "0", "-", "a", "A", ";", "$(", "\n", "\0", "\u{202e}", "\u{200b}",
        "\u{212a}", "é", "e\u{301}", "ａ", "🦀", "~",
    ];
    let mut random = Random(SEED);
    let mut taken = 0;
    for _ in 0..1_000_000 {
        let mut text = String::from(if random.below(8) == 0 { "" } else { "!rave " });
        for _ in 0..random.below(9) {
            text.push_str(random.pick(&PIECES));
        }
        if let Parsed::Command(command) = command::parse(&text) {
            taken += 1;
            let again = command.to_string();
            assert!(
                again.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"! -".contains(&byte)),
                "{text:?}"
            );
            assert_eq!(command::parse(&again), Parsed::Command(command), "{text:?}");
        }
    }
    assert!(taken > 1000, "only {taken} were commands");
}

fn transaction() -> Vec<u8> {
    let event = |body: &str| {
        json!({ "type": "m.room.message", "sender": "@dana:rave.local", "room_id": ROOM, "event_id": "$a", "origin_server_ts": 1,
            "content": { "msgtype": "m.text", "body": body, "m.relates_to": { "rel_type": "m.thread", "event_id": "$b" } } })
    };
    let member = json!({ "type": "m.room.member", "sender": "@dana:rave.local", "room_id": ROOM, "event_id": "$c", "state_key": "@rave:rave.local", "content": { "membership": "invite" } });
    json!({ "events": [event("!rave help"), event("!rave project create x"), member] }).to_string().into_bytes()
}

fn mutated(random: &mut Random, bytes: &mut Vec<u8>) {
    const PIECES: [&[u8]; 12] =
        [b"\"", b"{", b"}", b"[", b"]", b",", b":", b"null", b"\\u0000", b"\xff", b"1e999", b"\"events\":"];
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(4) {
            0 if at < bytes.len() => bytes[at] = random.next() as u8,
            1 => drop(bytes.drain(at..(at + random.below(9)).min(bytes.len()))),
            2 => drop(bytes.splice(at..at, random.pick(&PIECES).iter().copied())),
            _ => bytes.truncate(at),
        }
        if bytes.is_empty() {
            return;
        }
    }
}

#[test]
fn many_transactions() {
    let (mut random, good) = (Random(SEED), transaction());
    let mut read = 0;
    let inputs = std::env::var("FUZZ_INPUTS").ok().map_or(100_000, |text| text.parse().unwrap());
    for _ in 0..inputs {
        let mut bytes = good.clone();
        mutated(&mut random, &mut bytes);
        read += usize::from(intake::read(&bytes, &OWN).is_ok());
    }
    assert!(read > inputs / 100, "only {read} of {inputs} were transactions");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transactions_through_the_door() {
    let mut world = World::new().await;
    let (mut random, good) = (Random(SEED), transaction());
    for number in 0..1000 {
        let mut bytes = good.clone();
        mutated(&mut random, &mut bytes);
        let (status, _) = world.put(&format!("fuzz-{number}"), bytes).await;
        assert!([200, 400].contains(&status), "{status}");
    }
    let event = world.message(&mxid("mara"), ROOM, "!rave whoami");
    world.deliver(std::slice::from_ref(&event)).await;
    assert_eq!(world.reply(event["event_id"].as_str().unwrap()).await.code, "ok");
    assert!(world.is_alive());
    world.verify().await;
}
