"""What a browser and an OpenID client do, over HTTP as nginx hands it on. Nothing of the program under test is used."""

import base64
import hashlib
import html.parser
import http.client
import http.cookies
import json
import secrets
import subprocess
import tempfile
import urllib.parse

ORIGIN = "https://rave.local:3002"


class Answer:
    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.text = body.decode()

    @property
    def location(self):
        return self.headers["Location"]

    def json(self):
        return json.loads(self.text)

    def page(self):
        page = Page()
        page.feed(self.text)
        return page


class Page(html.parser.HTMLParser):
    """The forms of a page with their fields, and its links."""

    def __init__(self):
        super().__init__()
        self.forms = []
        self.links = []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "form":
            self.forms.append({"action": found["action"], "fields": {}})
        elif tag == "input" and self.forms and found.get("name"):
            self.forms[-1]["fields"].setdefault(found["name"], found.get("value") or "")
        elif tag == "a":
            self.links.append(found["href"])


class Browser:
    """Keeps cookies as a browser does: by path, and only what is Secure, since all is https to it."""

    def __init__(self, port, address="192.0.2.1"):
        self.port = port
        self.address = address
        self.cookies = {}

    def request(self, method, url, form=None, body=None, headers=None):
        path = url.removeprefix(ORIGIN)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Host": "rave.local:3002", "X-Forwarded-Proto": "https", "X-Forwarded-For": self.address}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if form is not None:
            body = urllib.parse.urlencode(form)
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        sent.update(headers or {})
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        answer = Answer(response, response.read())
        connection.close()
        for line in response.headers.get_all("Set-Cookie") or []:
            self.keep(line)
        return answer

    def keep(self, line):
        jar = http.cookies.SimpleCookie(line)
        for name, cookie in jar.items():
            assert cookie["path"] == "/gitlab" and cookie["secure"] and cookie["httponly"], line
            self.cookies[name] = cookie.value

    def get(self, url, **options):
        return self.request("GET", url, **options)

    def post(self, url, form, **options):
        return self.request("POST", url, form, **options)

    def sign_in(self, login, password, **fields):
        form = self.get("/gitlab/users/sign_in").page().forms[0]
        return self.post(form["action"], {**form["fields"], "user[login]": login, "user[password]": password, **fields})

    def user(self):
        """Who is signed in: the name on the page, or nobody."""
        answer = self.get("/gitlab/")
        return answer.text.split('id="username">')[1].split("<")[0] if answer.status == 200 else None


class Client:
    """An OpenID client with PKCE."""

    def __init__(self, port, uid, secret, redirect_uri, scope="openid profile email"):
        self.port = port
        self.uid, self.secret, self.redirect_uri, self.scope = uid, secret, redirect_uri, scope
        self.verifier = secrets.token_urlsafe(48)
        self.state, self.nonce = secrets.token_urlsafe(16), secrets.token_urlsafe(16)

    def authorize_url(self, **changes):
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {"client_id": self.uid, "redirect_uri": self.redirect_uri, "response_type": "code", "scope": self.scope, "state": self.state,
                 "nonce": self.nonce, "code_challenge": challenge, "code_challenge_method": "S256", **changes}
        return "/gitlab/oauth/authorize?" + urllib.parse.urlencode({key: value for key, value in query.items() if value is not None})

    def call(self, path, form=None, token=None, credentials=True):
        headers = {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        elif credentials:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{self.uid}:{self.secret}".encode()).decode()
        return Browser(self.port).request("POST" if form is not None else "GET", path, form, headers=headers)

    def redeem(self, code, **changes):
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect_uri, "code_verifier": self.verifier, **changes}
        return self.call("/gitlab/oauth/token", {key: value for key, value in form.items() if value is not None})

    def refresh(self, token):
        return self.call("/gitlab/oauth/token", {"grant_type": "refresh_token", "refresh_token": token})


def query_of(url):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


def decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def unpack(token):
    header, claims, _ = token.split(".")
    return json.loads(decode(header)), json.loads(decode(claims))


def signed_by(token, keys):
    """Asks OpenSSL whether the published key with the token's `kid` made its signature."""
    header, _ = unpack(token)
    key = next((key for key in keys["keys"] if key["kid"] == header["kid"]), None)
    if key is None or header["alg"] != "RS256":
        return False
    numbers = der(0x30, b"".join(der(0x02, b"\0" + decode(key[name])) for name in ("n", "e")))
    algorithm = der(0x30, bytes.fromhex("06092a864886f70d0101010500"))
    public = der(0x30, algorithm + der(0x03, b"\0" + numbers))
    signed, signature = token.rsplit(".", 1)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in ("key", public), ("signature", decode(signature)):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(content)
        done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", f"{folder}/key", "-keyform", "DER", "-signature", f"{folder}/signature"],
                              input=signed.encode(), capture_output=True)
    return done.returncode == 0


def der(tag, content):
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content
