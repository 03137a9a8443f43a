"""Repositories of the local Hub: bare git repositories, and a folder for large files."""

import datetime
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

LFS_SUFFIXES = (".parquet", ".arrow", ".safetensors", ".bin", ".pt", ".zip", ".gz", ".npz")
LFS_THRESHOLD = 10 * 1024 * 1024
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
Json = dict[str, Any]


class HubError(Exception):
    """An answer with an error status; ``code`` is the Hub's own name of the error."""

    def __init__(self, status: int, code: str | None = None, message: str = "", headers: Json | None = None) -> None:
        self.status, self.code, self.message, self.headers = status, code, message or code or "", headers or {}


def git(repository: Path, *arguments: str, data: bytes | None = None, env: Json | None = None) -> bytes:
    """What a git command prints; RuntimeError where it fails."""
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        input=data,
        capture_output=True,
        env={**os.environ, "TZ": "UTC", **(env or {})},
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout


def git_or_none(repository: Path, *arguments: str) -> str | None:
    """What a git command prints, stripped; None where it fails or prints nothing."""
    try:
        return git(repository, *arguments).decode().strip() or None
    except RuntimeError:
        return None


class Store:
    """All repositories below ``root``; ``users`` maps a token to the name of its user."""

    def __init__(self, root: Path, users: dict[str, str] | None = None) -> None:
        self.root = Path(root)
        self.large = self.root / "lfs"
        self.large.mkdir(parents=True, exist_ok=True)
        self.users = users or {"hf_test": "tester"}
        self.pull_requests: dict[tuple[str, str], list[Json]] = {}
        self.gated: dict[tuple[str, str], str] = {}

    def repository(self, kind: str, name: str) -> Path:
        path = self.root / kind / name
        if not (path / "HEAD").exists():
            raise HubError(401, "RepoNotFound", "Repository not found")
        return path

    def create(self, kind: str, name: str) -> None:
        path = self.root / kind / name
        if path.exists():
            raise HubError(409, message="You already created this repo")
        path.mkdir(parents=True)
        git(path, "init", "-q", "--bare", "-b", "main")
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        self.commit(
            kind, name, "main", {"summary": "initial commit"}, [("file", ".gitattributes", attributes.encode())]
        )

    def sha(self, kind: str, name: str, revision: str) -> str:
        path = self.repository(kind, name)
        candidates = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        if re.fullmatch(r"[0-9a-f]{7,40}|refs/(pr|convert)/[\w./-]+", revision):
            candidates.append(revision)
        for candidate in candidates:
            found = git_or_none(path, "rev-parse", "--verify", "-q", candidate + "^{commit}")
            if found:
                return found
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def tree(self, kind: str, name: str, revision: str, path: str = "", recursive: bool = False) -> list[Json]:
        sha, repository = self.sha(kind, name, revision), self.repository(kind, name)
        options = ["-r", "-t"] if recursive else []
        try:
            listed = git(repository, "ls-tree", "-z", "-l", *options, f"{sha}:{path}" if path else sha)
        except RuntimeError:
            raise HubError(404, "EntryNotFound", f"{path} does not exist on {revision}") from None
        return [self._entry(repository, path, line) for line in listed.decode().split("\0") if line]

    def _entry(self, repository: Path, folder: str, line: str) -> Json:
        meta, base = line.split("\t", 1)
        _, kind, oid, size = meta.split()
        full = f"{folder}/{base}" if folder else base
        if kind == "tree":
            return {"type": "directory", "oid": oid, "size": 0, "path": full}
        entry = {"type": "file", "oid": oid, "size": int(size), "path": full}
        pointer = POINTER.fullmatch(git(repository, "cat-file", "blob", oid)) if 100 < int(size) < 200 else None
        if pointer:
            large = {"oid": pointer[1].decode(), "size": int(pointer[2]), "pointerSize": int(size)}
            entry |= {"size": large["size"], "lfs": large}
        return entry

    def entry(self, kind: str, name: str, revision: str, path: str) -> Json:
        for entry in self.tree(kind, name, revision, path.rpartition("/")[0]):
            if entry["path"] == path:
                return entry
        raise HubError(404, "EntryNotFound", "Entry not found")

    def content(self, kind: str, name: str, entry: Json) -> bytes:
        if "lfs" in entry:
            return (self.large / entry["lfs"]["oid"]).read_bytes()
        return git(self.repository(kind, name), "cat-file", "blob", entry["oid"])

    def keep_large(self, oid: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != oid:
            raise HubError(400, message="sha256 mismatch")
        (self.large / oid).write_bytes(data)

    def commit(self, kind: str, name: str, branch: str, header: Json, operations: list[tuple[Any, ...]]) -> str:
        """Commit operations: (file, path, bytes), (lfs, path, oid, size), (delete, path)."""
        repository = self.repository(kind, name)
        ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
        head = git_or_none(repository, "rev-parse", "--verify", "-q", ref)
        if header.get("parentCommit") and header["parentCommit"] != head:
            raise HubError(412, message="A commit has happened since. Please refresh and try again.")
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": f"{folder}/index"}
            for role in ("AUTHOR", "COMMITTER"):
                env |= {f"GIT_{role}_NAME": "localhub", f"GIT_{role}_EMAIL": "hub@localhost"}
            if head:
                git(repository, "read-tree", head, env=env)
            for operation in operations:
                self._stage(repository, operation, env)
            tree = git(repository, "write-tree", env=env).decode().strip()
            parents = ["-p", head] if head else []
            message = header["summary"].encode()
            oid = git(repository, "commit-tree", tree, *parents, data=message, env=env).decode().strip()
        git(repository, "update-ref", ref, oid, head or "0" * 40)
        return oid

    def _stage(self, repository: Path, operation: tuple[Any, ...], env: Json) -> None:
        what, path, *rest = operation
        if what == "delete":
            names = [
                each for each in git(repository, "ls-files", "-z", "--", path, env=env).decode().split("\0") if each
            ]
            if not names:
                raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
            lines = "".join(f"0 {'0' * 40}\t{each}\0" for each in names)
            git(repository, "update-index", "-z", "--index-info", data=lines.encode(), env=env)
            return
        data = rest[0]
        if what == "lfs":
            if not (self.large / rest[0]).exists():
                raise HubError(400, message=f"LFS object missing: {rest[0]}")
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{rest[0]}\nsize {rest[1]}\n".encode()
        oid = git(repository, "hash-object", "-w", "--stdin", data=data).decode().strip()
        git(repository, "update-index", "--add", "--cacheinfo", f"100644,{oid},{path}", env=env)

    def info(self, kind: str, name: str, revision: str) -> Json:
        sha, path = self.sha(kind, name, revision), self.repository(kind, name)
        seconds = int(git(path, "log", "-1", "--format=%ct", sha))
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        files = [entry for entry in self.tree(kind, name, sha, recursive=True) if entry["type"] == "file"]
        info = {
            "_id": hashlib.md5(name.encode()).hexdigest()[:24],
            "id": name,
            "author": name.split("/")[0],
            "sha": sha,
            "lastModified": when,
            "createdAt": when,
            "private": False,
            "gated": self.gated.get((kind, name), False),
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": entry["path"]} for entry in files],
        }
        if kind != "models":
            return info
        results = [entry for entry in files if re.fullmatch(r"\.eval_results/[^/]+\.yaml", entry["path"])]
        return info | {
            "modelId": name,
            "cardData": self._header(kind, name, sha),
            "evalResults": [
                {"filename": entry["path"], "data": row}
                for entry in results
                for row in yaml.safe_load(self.content(kind, name, entry))
            ],
        }

    def _header(self, kind: str, name: str, sha: str) -> Json:
        """The YAML at the top of the card."""
        try:
            card = self.content(kind, name, self.entry(kind, name, sha, "README.md")).decode()
        except HubError:
            return {}
        found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
        return (yaml.safe_load(found[1]) or {}) if found else {}

    def names(self, kind: str, author: str) -> list[str]:
        """The author's repositories, all of them where none is named."""
        return sorted(
            str(path.parent.relative_to(self.root / kind)) for path in self.root.glob(f"{kind}/{author or '*'}/*/HEAD")
        )

    def may_write(self, user: str, kind: str, name: str, revision: str) -> bool:
        """Whether the user owns the repository, or opened the pull request."""
        opened = self.pull_requests.get((kind, name), [])
        number = revision.removeprefix("refs/pr/")
        own = number.isdigit() and opened[int(number) - 1]["author"]["name"] == user
        return user == name.partition("/")[0] or own

    def refs(self, kind: str, name: str, prefix: str) -> list[Json]:
        listed = git(self.repository(kind, name), "for-each-ref", "--format=%(objectname) %(refname)", prefix).decode()
        pairs = [line.split(" ") for line in listed.splitlines()]
        return [{"name": ref[len(prefix) :], "ref": ref, "targetCommit": sha} for sha, ref in pairs]
