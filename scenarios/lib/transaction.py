# In the guest, as root: hands a transaction to the bridge, as Synapse does, or as somebody does who should not. Argument, JSON: `txn`; `events`,
# each with event_id, room, sender, body (or `content`, `type`), or anything else to be sent as it is; `token`: hs (if left out), as, none, wrong
# or query; `raw`: the whole body as text; `size`: a body of so many bytes. Prints the status, and the answer's body if it is JSON.
import http.client
import json
import sys


def secret(name):
    with open("/etc/rave/secrets/bridge-" + name) as file:
        return file.read().strip()


def event(given):
    if not isinstance(given, dict) or "body" not in given and "content" not in given:
        return given
    content = given.get("content", dict(msgtype="m.text", body=given.get("body")))
    return dict(type=given.get("type", "m.room.message"), sender=given["sender"], room_id=given["room"], event_id=given["event_id"],
                content=content, origin_server_ts=0, unsigned=dict())


order = json.loads(sys.argv[1])
body = order.get("raw") or json.dumps(dict(events=[event(given) for given in order.get("events", [])]))
if "size" in order:
    body = "x" * order["size"]
path, headers, kind = f"/_matrix/app/v1/transactions/{order['txn']}", dict([("Content-Type", "application/json")]), order.get("token", "hs")
if kind in ("hs", "as"):
    headers["Authorization"] = "Bearer " + secret(kind + "-token")
elif kind == "wrong":
    headers["Authorization"] = "Bearer " + secret("hs-token").swapcase()
elif kind == "query":
    path += "?access_token=" + secret("hs-token")
bridge = http.client.HTTPConnection("127.0.0.1", 9000, timeout=60)
bridge.request("PUT", path, body.encode(), headers)
answer = bridge.getresponse()
text = answer.read().decode()
try:
    result = json.loads(text)
except ValueError:
    result = None
print(json.dumps(dict(status=answer.status, answer=result)))
