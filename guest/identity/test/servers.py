"""A private PostgreSQL and the program under test, each with a folder of its own, on a socket and a loopback port nobody else has."""

import glob
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

IDENTITY = pathlib.Path(__file__).resolve().parent.parent
ISSUER = "https://rave.local:3002/gitlab"


def until(probe, what, seconds=60):
    """Asks again until the probe answers with something true. The last reason is shown if it never does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = probe()
            if answer:
                return answer
            reason = repr(answer)
        except Exception as error:  # the server is not there yet
            reason = repr(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s; last: {reason}")
        time.sleep(0.05)


def ordinary_user():
    """PostgreSQL refuses to run as root, so root lends it to the user of Debian's package."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Folder:
    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="rave-identity-", dir="/tmp"))
        self.give(self.path)

    def give(self, path):
        user = ordinary_user()
        if user:
            os.chown(path, user["user"], user["group"])

    def write(self, name, content, mode=0o400):
        path = self.path / name
        path.unlink(missing_ok=True)
        path.write_text(content)
        path.chmod(mode)
        self.give(path)
        return path

    def remove(self):
        shutil.rmtree(self.path)


class Postgres:
    """A cluster in which everybody on the socket is whom they say; the socket is in a private folder."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder.path / "pg"
        # Debian keeps the server's programs off the path.
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
        program = found[-1] if found else shutil.which("initdb")
        if not program:
            raise SystemExit("test: no PostgreSQL server on this machine; install the package postgresql")
        self.binaries = pathlib.Path(program).parent
        self._run("initdb", "--pgdata", self.data, "--username", "gitlab", "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
        self.start()
        self._run("createdb", "--host", folder.path, "--username", "gitlab", "gitlab")
        self.file(IDENTITY / "schema.sql")

    def start(self):
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder.path} -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "--pgdata", self.data, "--silent", "--wait", "--log", self.folder.path / "pg.log", "--options", options, "start")

    def stop(self, mode="fast"):
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "--pgdata", self.data, "--silent", "--wait", "--mode", mode, "stop")

    def file(self, path):
        self._psql("--file", "-", stdin=path.read_text())

    def ask(self, sql, **variables):
        chosen = [word for name, value in variables.items() for word in ("--set", f"{name}={value}")]
        return self._psql(*chosen, "--file", "-", stdin=sql).strip()

    def _psql(self, *words, stdin):
        return self._run("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--host", self.folder.path, "--username", "gitlab",
                         "--dbname", "gitlab", *words, stdin=stdin)

    def _run(self, program, *words, stdin=""):
        command = [str(self.binaries / program), *map(str, words)]
        # pg_ctl's server keeps its outputs open, so they are a file's.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(command, input=stdin, stdout=output, stderr=subprocess.STDOUT, text=True, cwd="/", **ordinary_user())
            output.seek(0)
            text = output.read()
        if done.returncode:
            raise AssertionError(f"{program} failed: {text}")
        return text


class Identity:
    """The program, started as its unit does, with settings of its own."""

    def __init__(self, folder, **settings):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.faults = folder.path / "faults.yml"
        key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, text=True, check=True).stdout
        self.settings = {
            "listen": f"127.0.0.1:{self.port}",
            "issuer": ISSUER,
            "database_host": str(folder.path),
            "signing_key": str(folder.write("signing.pem", key)),
            "session_secret": str(folder.write("session", "0123456789abcdef" * 4)),
            "faults": str(self.faults),
            "protected_posts_per_minute": 1000,
            **settings,
        }
        self.log = folder.path / "identity.log"
        self.process = None

    def command(self):
        lines = [f"{key}: {json.dumps(value)}" for key, value in self.settings.items()]
        path = self.folder.write("identity.yml", "\n".join(lines) + "\n", 0o644)
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PGUSER": "gitlab", "RAVE_IDENTITY_SETTINGS": str(path)}
        return {"args": ["puma", "--config", str(IDENTITY / "puma.rb")], "env": environment, "cwd": "/", **ordinary_user()}

    def start(self):
        with self.log.open("ab") as log:
            started = time.monotonic()
            self.process = subprocess.Popen(**self.command(), stdout=log, stderr=log)
        until(self.serves, f"identity serves (log: {self.log})")
        return time.monotonic() - started

    def serves(self):
        if self.process.poll() is not None:
            raise SystemExit(f"test: identity ended with {self.process.returncode}: {self.log.read_text()}")
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/gitlab/-/health") as answer:
            return answer.read() == b"GitLab OK"

    def refusal(self):
        """Starts it with settings that are wrong; answers with its exit status and what it said."""
        done = subprocess.run(**self.command(), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr.strip()

    def memory_kib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
        return self.process and self.process.returncode
