# In the guest, as root: what the bridge's audit log says of an event, as a list of its lines, oldest first. Argument: the event's id.
import json
import sys
import tomllib

with open("/etc/rave/bridge.toml", "rb") as settings:
    log = tomllib.load(settings)["audit"]
with open(log) as lines:
    print(json.dumps([record for record in map(json.loads, lines) if record.get("event_id") == sys.argv[1]]))
