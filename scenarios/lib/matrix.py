# Beside QEMU: does something as a user of Matrix, from outside, and waits until what must follow has followed.
#
#     python3 matrix.py ADDRESS CA_FILE <<< '{"token": …, "do": "room" | "say" | "send" | "wait" | "read" | "call", …}'
#
# room: makes a room, invites `invite` (the bridge if left out), waits until it has joined. Prints {"room": …}.
#       With `"joins": false` it does not wait.
# say:  sends `body` to `room` and waits for the bridge's last reply to it. Prints {"event": …, "code": …, "body": …, "links": […],
#       "codes": [all codes, oldest first], "after_ms": from when Synapse had the message until it had the reply}. `content` replaces
#       the whole content of the event, `type` its type.
# send: the same without waiting. Prints {"event": …}.
# wait: waits for the bridge's last reply to `event` in `room`, as `say` does.
# call: any request of the client interface: `method`, `path` below /_matrix/client/v3, `body`. Prints the answer.
# read: prints {"replies": […], "members": […], "notices": […]} of `room`: what the bridge has written so far, and who is there.
#
# Whoever calls has a deadline and ends this; what is waited for stands on standard error. A sabotage after which nothing can come says how
# long is waited all the same: MATRIX_SECONDS in the environment.
import http.client
import json
import os
import signal
import socket
import ssl
import sys
import uuid
from urllib.parse import quote, urlencode

BRIDGE = "@rave:rave.local"
NOT_LAST = ("accepted",)


class Client(http.client.HTTPSConnection):
    """Connects to the machine's own address, and checks the certificate for rave.local."""

    def __init__(self, address, ca, token):
        super().__init__("rave.local", 3002, timeout=120, context=ssl.create_default_context(cafile=ca))
        self.address, self.token = address, token

    def connect(self):
        plain = socket.create_connection((self.address, self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)

    def ask(self, method, path, body=None):
        headers = {"Authorization": "Bearer " + self.token, "Content-Type": "application/json"}
        self.request(method, "/_matrix/client/v3" + path, None if body is None else json.dumps(body), headers)
        answer = self.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{method} {path}: HTTP {answer.status}: {text.decode()}")
        return json.loads(text)


def events(client, room, kinds=("m.room.message", "m.room.member")):
    """All events of a room, oldest first."""
    found, query = [], dict(dir="f", limit=1000, filter=json.dumps(dict(types=list(kinds))))
    while True:
        part = client.ask("GET", f"/rooms/{quote(room)}/messages?{urlencode(query)}")
        found += part["chunk"]
        if not part.get("end") or not part["chunk"]:
            return found
        query["from"] = part["end"]


def watch(client, room, reason):
    """Yields after every change of the room."""
    print(f"waiting for {reason}", file=sys.stderr, flush=True)
    only = dict(room=dict(rooms=[room], timeline=dict(limit=1)), presence=dict(types=[]))
    query = dict(filter=json.dumps(only), timeout=0)
    while True:
        query["since"] = client.ask("GET", f"/sync?{urlencode(query)}")["next_batch"]
        query["timeout"] = 30000
        yield


def bridge_replies(client, room, event):
    asked = None
    for found in events(client, room):
        if found.get("event_id") == event:
            asked = found["origin_server_ts"]
        content = found.get("content", dict())
        related = content.get("m.relates_to", dict()).get("m.in_reply_to", dict()).get("event_id")
        if found["sender"] == BRIDGE and found["type"] == "m.room.message" and related == event:
            reply = content.get("org.rave.reply", dict())
            yield dict(code=reply.get("code"), verb=reply.get("verb"), command=reply.get("command_id"), body=content.get("body"),
                       msgtype=content.get("msgtype"), links=reply.get("links", []), retry=reply.get("retry_after_ms"),
                       after_ms=asked and found["origin_server_ts"] - asked)


def wait_for_reply(client, room, event):
    for _ in watch(client, room, f"the bridge's reply to {event}"):
        replies = list(bridge_replies(client, room, event))
        if replies and replies[-1]["code"] not in NOT_LAST:
            return dict(replies[-1], event=event, codes=[reply["code"] for reply in replies])


def send(client, order):
    content = order.get("content") or dict(msgtype="m.text", body=order["body"])
    kind = order.get("type", "m.room.message")
    path = f"/rooms/{quote(order['room'])}/send/{quote(kind)}/{uuid.uuid4()}"
    return client.ask("PUT", path, content)["event_id"]


def make_room(client, order):
    invite = order.get("invite", [BRIDGE])
    room = client.ask("POST", "/createRoom", dict(preset="private_chat", invite=invite))["room_id"]
    if order.get("joins", True):
        for _ in watch(client, room, f"{invite} to join"):
            if set(invite) <= set(client.ask("GET", f"/rooms/{quote(room)}/joined_members")["joined"]):
                break
    return dict(room=room)


def read(client, order):
    room = order["room"]
    own = [found for found in events(client, room) if found["sender"] == BRIDGE and found["type"] == "m.room.message"]
    return dict(
        notices=[found["content"].get("body") for found in own],
        replies=[dict(code=found["content"].get("org.rave.reply", dict()).get("code"),
                      to=found["content"].get("m.relates_to", dict()).get("m.in_reply_to", dict()).get("event_id")) for found in own],
        members=sorted(client.ask("GET", f"/rooms/{quote(room)}/joined_members")["joined"]),
    )


def main():
    if seconds := os.environ.get("MATRIX_SECONDS"):
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"it took more than {seconds} s"))
        signal.alarm(int(seconds))
    order = json.load(sys.stdin)
    client = Client(sys.argv[1], sys.argv[2], order["token"])
    match order["do"]:
        case "room":
            result = make_room(client, order)
        case "say":
            result = wait_for_reply(client, order["room"], send(client, order))
        case "send":
            result = dict(event=send(client, order))
        case "wait":
            result = wait_for_reply(client, order["room"], order["event"])
        case "read":
            result = read(client, order)
        case "call":
            result = client.ask(order["method"], order["path"], order.get("body"))
        case other:
            sys.exit(f"`do` is room, say, send, wait, read or call, not {other}")
    print(json.dumps(result, ensure_ascii=False))


main()
