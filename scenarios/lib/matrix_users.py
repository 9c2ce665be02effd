# In the guest, as root: makes accounts of the forge known to Synapse, as a first login would, and logs them in. Goes through Synapse's admin
# interface, which is served inside the machine only. The limits of Synapse on logins and messages do not count for them: what is asked is
# the bridge. Arguments: names of accounts, or `=NAME` for a user of Matrix that no account stands behind.
# Prints {"NAME": {"user": "@NAME:rave.local", "token": …, "sub": …}, …}.
import hmac
import json
import secrets
import sys
from urllib.parse import quote
from urllib.request import Request, urlopen

SYNAPSE = "http://127.0.0.1:8008"
FORGE = "{{guest.gitlab_api}}"
FORGE_TOKEN = "{{account.root.token}}"


def ask(method, url, headers, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, headers, method=method), timeout=60) as answer:
        return json.load(answer)


def admin():
    url = SYNAPSE + "/_synapse/admin/v1/register"
    nonce = ask("GET", url, {})["nonce"]
    user, password = "hermetic-admin-" + nonce[:8], secrets.token_hex()
    key = open("/etc/rave/secrets/synapse-registration", "rb").read().strip()
    mac = hmac.new(key, "\0".join([nonce, user, password, "admin"]).encode(), "sha1").hexdigest()
    body = dict(nonce=nonce, username=user, password=password, admin=True, mac=mac)
    return "Bearer " + ask("POST", url, {}, body)["access_token"]


def login(headers, name):
    linked, name = not name.startswith("="), name.lstrip("=")
    user = f"@{name}:rave.local"
    path, body, sub = quote(user), dict(displayname=name), None
    if linked:
        [account] = ask("GET", f"{FORGE}/users?username={name}", {"PRIVATE-TOKEN": FORGE_TOKEN})
        sub = str(account["id"])
        body["external_ids"] = [dict(auth_provider="oidc-gitlab", external_id=sub)]
    ask("PUT", f"{SYNAPSE}/_synapse/admin/v2/users/{path}", headers, body)
    limits = dict(messages_per_second=0, burst_count=0)
    ask("POST", f"{SYNAPSE}/_synapse/admin/v1/users/{path}/override_ratelimit", headers, limits)
    token = ask("POST", f"{SYNAPSE}/_synapse/admin/v1/users/{path}/login", headers, dict())["access_token"]
    return name, dict(user=user, token=token, sub=sub)


headers = {"Authorization": admin()}
print(json.dumps(dict(login(headers, name) for name in sys.argv[1:])))
