"""Functions as Lambda runs them: a binary under AWS's Runtime Interface Emulator, on the stores of a local stack."""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

# The crate whose folder has a binary's events.
FUNCTIONS = {
    "auth": "auth",
    "migrate": "auth",
    "ingest": "ingest",
    "ingest-events": "ingest",
    "sweeper": "ingest",
    "query": "query",
    "query-stream": "query",
}
INBOX = "lockstep-inbox"
# A start on a busy machine, and an answer.
PATIENCE_S = 60


class Failure(Exception):
    pass


def ask(method, url, body=None, **headers):
    """One request's status and body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


class Stack:
    """A local stack that runs on the folder `data`, at `url`, with its S3 at `s3`."""

    def __init__(self, data, url, s3):
        self.data, self.url = Path(data), url
        stores = json.loads((self.data / "stores.json").read_text())
        keys = json.loads((self.data / "keys/token-signing.json").read_text())
        self.environment = {
            "DATABASE_URL": stores["database_url"],
            "QDRANT_URL": stores["qdrant_url"],
            "TOKEN_ISSUER": url,
            "TOKEN_JWKS": keys["jwks"],
            "TOKEN_SIGNING_KEY": keys["private_pem"],
            "S3_ENDPOINT": s3,
            "S3_REGION": "us-east-1",
            "S3_ACCESS_KEY_ID": "lockstep",
            "S3_SECRET_ACCESS_KEY": (self.data / "s3/secret-key").read_text().strip(),
            "UPLOAD_BUCKET": INBOX,
            "EMBEDDING_MODEL_DIR": os.environ["EMBEDDING_MODEL_DIR"],
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
        }

    def of(self, function):
        """A function's environment. Only the migrations run as the database's owner."""
        if function == "migrate":
            return dict(self.environment)
        url = self.environment["DATABASE_URL"]
        return self.environment | {"DATABASE_URL": f"{url}{'&' if '?' in url else '?'}options=-c%20role%3Dlockstep_app"}

    def account(self):
        """Makes one, and tells what the events leave open: a token and a knowledge base."""
        email = f"{uuid.uuid4().hex}@example.com"
        status, body = ask("POST", f"{self.url}/auth/register", {"email": email, "password": "for an event's sake"})
        if status != 201:
            raise Failure(f"no account can be made: {status} {body.decode(errors='replace')}")
        account = json.loads(body)
        token = account["access_token"]
        _, body = ask("GET", f"{self.url}/knowledge-bases", authorization=f"Bearer {token}")
        bases = json.loads(body)
        bases = bases if isinstance(bases, list) else next(value for value in bases.values() if isinstance(value, list))
        return {"$TOKEN": token, "$KNOWLEDGE_BASE": bases[0]["id"]}

    def put(self, key, content):
        """An object in the inbox, of which nobody is told."""
        path = self.data / "s3/buckets" / INBOX / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextlib.contextmanager
def stack(program):
    """Runs a stack of its own, as `lockstep up` does."""
    with tempfile.TemporaryDirectory() as data, contextlib.ExitStack() as ending:
        os.chmod(data, 0o755)  # PostgreSQL may run as another user
        environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "QDRANT_URL", "PORT")}
        process = subprocess.Popen(
            [program, "up", "--quiet", "--port", "0"],
            env=environment | {"LOCKSTEP_DATA_DIR": data},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        ending.callback(process.wait)
        ending.callback(process.terminate)
        words = process.stdout.readline().split()
        if len(words) != 4 or words[0] != "ready":
            raise Failure(f"the stack says {words}")
        yield Stack(data, words[1], words[3])


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Emulator:
    """One function under the emulator, until the block ends."""

    def __init__(self, rie, binary, environment):
        self.rie, self.binary, self.environment = rie, binary, environment

    def __enter__(self):
        port, self.log = free_port(), tempfile.TemporaryFile("w+")
        self.url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
        self.process = subprocess.Popen(
            [
                *(self.rie, "--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
                *("--runtime-api-address", f"127.0.0.1:{free_port()}", "--log-level", "info", self.binary),
            ],
            env=self.environment | {"AWS_LAMBDA_FUNCTION_TIMEOUT": str(PATIENCE_S)},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return self
            if self.process.poll() is not None or time.monotonic() > until:
                raise Failure(f"the emulator does not start: {self.output()}")
            time.sleep(0.02)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def invoke(self, event):
        """What the function answers to it, as bytes: the emulator knows no other status than 200 for what a function says."""
        status, body = ask("POST", self.url, event)
        if status != 200:
            raise Failure(f"the emulator answers {status} {body.decode(errors='replace')}: {self.output()}")
        return body


def read_event(path, known):
    """An event, with what it leaves open filled in."""
    text = Path(path).read_text()
    for name, value in known.items():
        text = text.replace(name, value)
    return json.loads(text)
