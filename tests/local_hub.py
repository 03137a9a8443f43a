"""A server on localhost that speaks enough of the Hub's protocol for its unmodified clients.

``with running(folder) as (store, url)`` serves; clients need HF_ENDPOINT=url, HF_TOKEN=hf_test, and, to upload,
HF_HUB_DISABLE_XET=1, all set before huggingface_hub is imported.

``eval "$(python -m tests.local_hub --user NAME)"`` starts one in the background and sets these in the shell, signed in
as NAME; ``kill $LOCAL_HUB_PID`` ends it, and what was pushed to it is gone.
"""

import argparse
import base64
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.local_hub_handler import Handler, route
from tests.local_hub_store import LFS_SUFFIXES, LFS_THRESHOLD, HubError, Json, Store, git, git_or_none

KIND = r"(?P<kind>models|datasets|spaces)"
REPO = r"(?P<name>[\w.-]+/[\w.-]+)"
PREFIX = r"(?:(?P<kind>datasets|spaces)/)?"


@route("GET", "/api/whoami-v2")
def whoami(h: Handler) -> None:
    user = h.user()
    token = {"type": "access_token", "accessToken": {"role": "write", "displayName": "test"}}
    h.send({"type": "user", "id": user, "name": user, "fullname": user, "isPro": False, "orgs": [], "auth": token})


@route("POST", "/api/validate-yaml")
def validate_yaml(h: Handler) -> None:
    h.send({"errors": [], "warnings": []})


@route("POST", "/api/repos/create")
def create(h: Handler) -> None:
    user, body = h.user(), h.json()
    kind, name = (body.get("type") or "model") + "s", f"{body.get('organization') or user}/{body['name']}"
    try:
        h.store.create(kind, name)
    except HubError as error:
        h.send({"error": error.message, "url": h.url_of(kind, name)}, error.status)
        return
    h.send({"url": h.url_of(kind, name), "name": name, "id": name})


@route("DELETE", "/api/repos/delete")
def delete(h: Handler) -> None:
    user, body = h.user(), h.json()
    name = f"{body.get('organization') or user}/{body['name']}"
    shutil.rmtree(h.store.repository((body.get("type") or "model") + "s", name))
    h.send({})


@route("PUT", f"/api/{KIND}/{REPO}/settings")
def settings(h: Handler, kind: str, name: str) -> None:
    h.user()
    h.store.repository(kind, name)
    if "gated" in h.json():
        h.store.gated[(kind, name)] = h.json()["gated"]
    h.send({"gated": h.store.gated.get((kind, name), False)})


@route("GET", "/api/models")
def list_models(h: Handler) -> None:
    h.send([h.store.info("models", name, "main") for name in h.store.names("models", h.query.get("author", ""))])


@route("GET", f"/api/{KIND}/{REPO}(/revision/(?P<revision>[^/]+))?")
def info(h: Handler, kind: str, name: str, revision: str) -> None:
    h.send(h.store.info(kind, name, revision or "main"))


@route("GET", f"/api/{KIND}/{REPO}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?")
def tree(h: Handler, kind: str, name: str, revision: str, path: str) -> None:
    recursive = h.query.get("recursive", "").lower() in ("1", "true")
    h.send(h.store.tree(kind, name, revision, path.strip("/"), recursive))


@route("POST", f"/api/{KIND}/{REPO}/paths-info/(?P<revision>[^/]+)")
def paths_info(h: Handler, kind: str, name: str, revision: str) -> None:
    is_json = "json" in h.headers.get("Content-Type", "")
    paths = (h.json() if is_json else urllib.parse.parse_qs(h.body.decode()))["paths"]
    h.store.sha(kind, name, revision)
    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        try:
            found.append(h.store.entry(kind, name, revision, path))
        except HubError:
            continue
    h.send(found)


@route("GET", f"/api/{KIND}/{REPO}/refs")
def refs(h: Handler, kind: str, name: str) -> None:
    prefixes = {"branches": "refs/heads/", "tags": "refs/tags/", "pullRequests": "refs/pr/"}
    found = {key: h.store.refs(kind, name, prefix) for key, prefix in prefixes.items()}
    h.send({"converts": [], **found})


@route("GET", f"/api/{KIND}/{REPO}/commits/(?P<revision>[^/]+)")
def commits(h: Handler, kind: str, name: str, revision: str) -> None:
    path, sha = h.store.repository(kind, name), h.store.sha(kind, name, revision)
    form = "--format=%H%x1f%cd%x1f%s%x1f%b%x1e"
    listed = git(path, "log", "--date=format-local:%Y-%m-%dT%H:%M:%S.000Z", form, sha).decode()
    keys = ("id", "date", "title", "message")
    records = [each.strip("\n").split("\x1f") for each in listed.split("\x1e") if each.strip()]
    h.send([dict(zip(keys, record, strict=True)) | {"authors": [{"user": "localhub"}]} for record in records])


@route("POST", f"/api/{KIND}/{REPO}/preupload/(?P<revision>[^/]+)")
def preupload(h: Handler, kind: str, name: str, revision: str) -> None:
    h.user()
    h.store.sha(kind, name, revision)
    files = []
    for file in h.json()["files"]:
        large = file["path"].endswith(LFS_SUFFIXES) or file["size"] > LFS_THRESHOLD
        answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        try:
            entry = h.store.entry(kind, name, revision, file["path"])
            answer["oid"] = entry.get("lfs", entry)["oid"]
        except HubError:
            pass
        files.append(answer)
    h.send({"files": files})


@route("POST", rf"/{PREFIX}{REPO}\.git/info/lfs/objects/batch")
def lfs_batch(h: Handler, kind: str, name: str) -> None:
    h.user()
    body, objects = h.json(), []
    for item in body["objects"]:
        url = f"{h.base}/_lfs/{item['oid']}"
        actions: Json = {"download": {"href": url}}
        if body["operation"] == "upload":
            known = (h.store.large / item["oid"]).exists()
            actions = {} if known else {"upload": {"href": url, "header": {}}, "verify": {"href": f"{url}/verify"}}
        answer = {"oid": item["oid"], "size": item["size"], "authenticated": True}
        objects.append(answer | ({"actions": actions} if actions else {}))
    h.send({"transfer": "basic", "objects": objects})


@route("PUT", "/_lfs/(?P<oid>[0-9a-f]{64})")
def lfs_put(h: Handler, oid: str) -> None:
    h.store.keep_large(oid, h.body)
    h.send({}, headers={"ETag": f'"{oid}"'})


@route("POST", "/_lfs/(?P<oid>[0-9a-f]{64})/verify")
def lfs_verify(h: Handler, oid: str) -> None:
    if (h.store.large / oid).stat().st_size != h.json()["size"]:
        raise HubError(400, message="size mismatch")
    h.send({})


@route("POST", f"/api/{KIND}/{REPO}/commit/(?P<revision>[^/]+)")
def commit(h: Handler, kind: str, name: str, revision: str) -> None:
    user = h.user()
    header: Json = {}
    operations: list[tuple[Any, ...]] = []
    for line in h.body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            header = value
        elif item["key"] == "file":
            data = value["content"].encode()
            operations.append(("file", value["path"], base64.b64decode(data) if value.get("encoding") else data))
        elif item["key"] == "lfsFile":
            size = value.get("size") or (h.store.large / value["oid"]).stat().st_size
            operations.append(("lfs", value["path"], value["oid"], size))
        else:
            operations.append(("delete", value["path"].rstrip("/")))
    answer: Json = {}
    if h.query.get("create_pr"):
        revision, number = open_pull_request(h, kind, name, revision, header["summary"], user)
        answer["pullRequestUrl"] = f"{h.url_of(kind, name)}/discussions/{number}"
    elif not h.store.may_write(user, kind, name, revision):
        raise HubError(403, message="You don't have the right to push to this repository: open a pull request.")
    elif not revision.startswith("refs/"):
        h.store.sha(kind, name, revision)
    oid = h.store.commit(kind, name, revision, header, operations)
    url = f"{h.url_of(kind, name)}/commit/{oid}"
    h.send({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": "", **answer})


def open_pull_request(h: Handler, kind: str, name: str, revision: str, title: str, user: str) -> tuple[str, int]:
    """A new ref for a pull request on ``revision``, and its number."""
    opened = h.store.pull_requests.setdefault((kind, name), [])
    number = len(opened) + 1
    git(h.store.repository(kind, name), "update-ref", f"refs/pr/{number}", h.store.sha(kind, name, revision))
    opened.append(
        {
            "num": number,
            "title": title,
            "status": "open",
            "isPullRequest": True,
            "author": {"name": user},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "repo": {"name": name, "type": kind[:-1]},
            "pinned": False,
            "locked": False,
        }
    )
    return f"refs/pr/{number}", number


@route("GET", f"/api/{KIND}/{REPO}/discussions")
def discussions(h: Handler, kind: str, name: str) -> None:
    author, status = h.query.get("author"), h.query.get("status")
    opened = [
        each
        for each in h.store.pull_requests.get((kind, name), [])
        if author in (None, each["author"]["name"]) and status in (None, each["status"])
    ]
    first_page = int(h.query.get("p", 0)) == 0
    h.send({"discussions": opened if first_page else [], "count": len(opened), "start": 0})


@route("POST", f"/api/{KIND}/{REPO}/discussions/(?P<number>[0-9]+)/merge")
def merge(h: Handler, kind: str, name: str, number: str) -> None:
    """Fast-forward main; a pull request that fell behind is refused."""
    if not h.store.may_write(h.user(), kind, name, "main"):
        raise HubError(403, message="Only the repository's owner merges.")
    path, head = h.store.repository(kind, name), h.store.sha(kind, name, f"refs/pr/{number}")
    if git(path, "merge-base", "main", head).decode().strip() != h.store.sha(kind, name, "main"):
        raise HubError(409, message="The pull request is behind main.")
    git(path, "update-ref", "refs/heads/main", head)
    h.store.pull_requests[kind, name][int(number) - 1]["status"] = "merged"
    h.send({})


@route("POST DELETE", f"/api/{KIND}/{REPO}/(?P<what>tag|branch)/(?P<revision>[^/]+)")
def tag_or_branch(h: Handler, kind: str, name: str, what: str, revision: str) -> None:
    h.user()
    path, body = h.store.repository(kind, name), h.json()
    new_tag = what == "tag" and h.command == "POST"
    label, start = (body["tag"], revision) if new_tag else (revision, body.get("startingPoint", "main"))
    ref = f"refs/{'tags' if what == 'tag' else 'heads'}/{label}"
    known = git_or_none(path, "rev-parse", "--verify", "-q", ref)
    if h.command == "DELETE":
        if not known:
            raise HubError(404, "RevisionNotFound", label)
        git(path, "update-ref", "-d", ref)
    else:
        if known:
            raise HubError(409, message=f"{what} {label} already exists")
        git(path, "update-ref", ref, h.store.sha(kind, name, start))
    h.send({})


@route("GET", "/_lfs/(?P<oid>[0-9a-f]{64})")
def lfs_get(h: Handler, oid: str) -> None:
    h.send_range((h.store.large / oid).read_bytes(), {"ETag": f'"{oid}"'})


@route("GET", rf"/{PREFIX}{REPO}/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(h: Handler, kind: str, name: str, revision: str, path: str) -> None:
    kind = kind or "models"
    sha = h.store.sha(kind, name, revision)
    if h.store.gated.get((kind, name)):
        try:
            h.user()
        except HubError:
            raise HubError(403, "GatedRepo", "Access to this repository is restricted") from None
    try:
        entry = h.store.entry(kind, name, sha, path)
        if entry["type"] == "directory":
            raise HubError(404, "EntryNotFound", "is a directory")
    except HubError as error:
        error.headers["X-Repo-Commit"] = sha
        raise
    headers = {"X-Repo-Commit": sha, "ETag": f'"{entry["oid"]}"'}
    if "lfs" in entry:
        tag = f'"{entry["lfs"]["oid"]}"'
        headers |= {"ETag": tag, "X-Linked-Etag": tag, "X-Linked-Size": str(entry["size"])}
    h.send_range(h.store.content(kind, name, entry), headers)


@contextmanager
def running(root: Path, users: dict[str, str] | None = None, port: int = 0) -> Iterator[tuple[Store, str]]:
    """Serve the repositories below ``root`` on ``port`` of localhost, 0 takes a free one: the store and the URL."""
    store = Store(root, users)
    server = ThreadingHTTPServer(("127.0.0.1", port), type("BoundHandler", (Handler,), {"store": store}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield store, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


TOKEN = "hf_localhub"
"""Signs its only user in; it opens nothing but this server."""


def main() -> None:
    """Start a server in the background and print what sets a shell up for it."""
    parser = argparse.ArgumentParser(prog="python -m tests.local_hub", description="A Hub on this machine, for trying.")
    parser.add_argument("--user", default="your-name", help="who is signed in")
    parser.add_argument("--port", type=int, default=0, help="a free one by default")
    parser.add_argument("--foreground", action="store_true", help="serve in this process, until it is stopped")
    asked = parser.parse_args()
    if asked.foreground:
        serve(asked.user, asked.port)
        return
    command = [sys.executable, "-m", "tests.local_hub", "--foreground", "--user", asked.user, "--port", str(asked.port)]
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert server.stdout is not None
    url = server.stdout.readline().decode().strip()
    if not url:
        sys.exit(f"no server could be started on port {asked.port}: is it taken?")
    settings = {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": 1, "LOCAL_HUB_PID": server.pid}
    print("\n".join(f"export {name}={value}" for name, value in settings.items()))


def serve(user: str, port: int) -> None:
    """Print the URL and serve until a signal comes; then the repositories are removed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as root, running(Path(root), {TOKEN: user}, port) as (_, url):
        print(url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
