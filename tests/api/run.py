#!/usr/bin/env python3
"""Holds the API to its OpenAPI description with Schemathesis: as each role and as nobody, no answer of 5xx and none that is not described.

Without --url it starts hostd over the simulated host anew for each role. With --url it goes to a host that runs, which has to be one for tests.
"""

import argparse
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = ["administrator", "read-only", "no-access", "own", "nobody"]
# The tool leaves notes where it runs.
BUILD = ROOT / "build"
# The role of these tests: some of each kind of privilege.
OWN = ["System.Read", "VirtualMachine.Power", "VirtualMachine.Config", "Datastore.Browse", "Network.Config"]
# What would take the tester's own access, or the host, away from the rest: tried last, each role on a host of its own.
LAST = ["logOut", "setLockdownMode", "restore", "rebootHost", "shutdownHost"]
# On a host that goes on being used those are left out but for the roles that may not do them. The network's settings would cut the tests off.
NEVER_ON_A_HOST = [*LAST, "editInterface", "editSwitch", "deleteSwitch", "restartServer", "stopService", "restartService", "setCertificate", "renewCertificate"]
# They answer with a WebSocket, which this tool does not speak; the tests of hostd do.
SOCKETS = ["openConsole", "followChanges", "joinScreen"]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


class Host:
    """Speaks JSON with the host."""

    def __init__(self, url):
        self.url, self.token = url, None
        # The certificate is of the host's own making.
        self.tls = ssl._create_unverified_context()

    def ask(self, method, path, body=None):
        request = urllib.request.Request(f"{self.url}/api/v1{path}", method=method)
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, data, timeout=60, context=self.tls) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}")
        return json.loads(text) if text else None

    def log_in(self, user, password):
        self.token = None
        self.token = self.ask("POST", "/session", {"user": user, "password": password, "bearer": True})["token"]


def names(host, path, of):
    return [of(one) for one in host.ask("GET", path)["items"]]


def prepare(host, password, role):
    """Makes somebody of that role, and things to try; gives the token and the things' names."""
    host.log_in("root", password)
    stores = names(host, "/datastores", lambda one: one["id"])
    if not host.ask("GET", "/vms")["items"]:
        kernel = {"firmware": "direct", "kernel": "[datastore1] kernels/vmlinuz"}
        host.ask("POST", "/vms", {"name": "tried", "vcpus": 1, "memory": 64 << 20, "boot": kernel})
    host.ask("POST", "/users", {"name": f"victim-{role}", "password": "a long password"})
    hints = {
        "vm": names(host, "/vms", lambda one: one["id"]),
        "datastore": stores,
        "network": names(host, "/networks/port-groups", lambda one: one["id"]),
        "switch": names(host, "/networks/switches", lambda one: one["id"]),
        "interface": names(host, "/networks/interfaces", lambda one: one["id"]),
        "task": names(host, "/tasks", lambda one: one["id"]),
        "role": names(host, "/roles", lambda one: one["id"]),
        "service": names(host, "/services", lambda one: one["id"]),
        "user": [one for one in names(host, "/users", lambda one: one["name"]) if one.startswith("victim")],
        "path": ["kernels/vmlinuz", "iso/tried.iso", "tried"],
    }
    if role == "nobody":
        return None, hints
    if role != "administrator":
        wanted = {"read-only": "readOnly", "no-access": "noAccess"}.get(role)
        if wanted is None:
            wanted = host.ask("POST", "/roles", {"name": "Tester", "privileges": OWN})["id"]
        host.ask("POST", "/users", {"name": f"tester-{role}", "password": "a long password", "role": wanted})
        # Its session ends when its password is changed or it is removed; nothing here does so before the last round.
        host.log_in(f"tester-{role}", "a long password")
        return host.token, hints
    # A key outlives its user's sessions, and nothing here knows its identifier.
    return host.ask("POST", "/api-keys", {"name": f"tester-{role}"})["key"], hints


def fuzz(tool, url, token, hints, examples, selection, more):
    """Runs the tool; gives how many requests it made and whether all answers were right."""
    command = [tool, "run", f"{url}/api/openapi.json", "--url", url, "--phases", "fuzzing", "--max-examples", str(examples)]
    command += ["--checks", CHECKS, "--continue-on-failure", "--warnings", "off", "--generation-database", "none"]
    command += ["--suppress-health-check", "all", "--tls-verify", "false", "--no-color", *selection, *more]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(ROOT / "tests/api"), "TESSERA_HINTS": json.dumps(hints)}
    ran = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd=BUILD)
    made = re.search(r"(\d+) generated", ran.stdout)
    if ran.returncode != 0 or not made:
        print(ran.stdout)
    return int(made[1]) if made else 0, ran.returncode == 0 and made is not None


def served(binary, password):
    """Starts hostd over the simulated host; gives the process and its address."""
    server = subprocess.Popen([binary, "--port", "0", "--password", password, "--delay", "5"], stdout=subprocess.PIPE, text=True)
    return server, server.stdout.readline().split("/ ")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="host that runs; left out: hostd over the simulated host")
    parser.add_argument("--password", default="tessera-dev", help="root's")
    parser.add_argument("--roles", default=",".join(ROLES))
    parser.add_argument("--examples", type=int, default=120, help="requests of each operation and role")
    parser.add_argument("--tool", default="schemathesis")
    parser.add_argument("--server", default=str(ROOT / "target/debug/tessera-hostd-dev"))
    options, more = parser.parse_known_args()
    BUILD.mkdir(exist_ok=True)
    total, good = 0, True
    for role in options.roles.split(","):
        server, url = (None, options.url) if options.url else served(options.server, options.password)
        try:
            token, hints = prepare(Host(url), options.password, role)
            without = SOCKETS + (NEVER_ON_A_HOST if options.url else LAST)
            rounds = [([part for name in without for part in ("--exclude-operation-id", name)], options.examples)]
            if not options.url:
                rounds.append(([part for name in LAST for part in ("--include-operation-id", name)], min(options.examples, 20)))
            for selection, examples in rounds:
                count, right = fuzz(options.tool, url, token, hints, examples, selection, more)
                total, good = total + count, good and right
                print(f"{role}: {count} requests, {'all answered as described' if right else 'WRONG ANSWERS'}", flush=True)
            if server and server.poll() is not None:
                print(f"hostd ended with {server.returncode}")
                good = False
        finally:
            if server:
                server.kill()
                server.wait()
    print(f"{total} requests")
    sys.exit(not good)


if __name__ == "__main__":
    main()
