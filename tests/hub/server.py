"""The server: what huggingface_hub asks for when it uploads, downloads and searches, and nothing else."""

import base64
import hashlib
import json
import re
import threading
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from .connection import Answer, Connection, Hub, refusal
from .repos import Repository, StaleParentError, front_matter, pointer


class Handler(Connection):
    """The answers, by the name of the request."""

    @property
    def _repository(self) -> Repository:
        return self.hub.repositories[self.groups["repo"]]

    def _commit_asked(self) -> str:
        commit = self._repository.commit_of(self.groups.get("revision", "main"))
        if commit is None:
            raise refusal(404, "RevisionNotFound", f"Invalid rev id: {self.groups['revision']}")
        return commit

    def _whoami(self) -> Answer:
        user = self.user()
        return Answer(200, {"name": user, "type": "user"}) if user else refusal(401, "", "who are you?")

    def _create(self) -> Answer:
        user, body = self.user(), json.loads(self.payload)
        namespace = body.get("organization") or user
        if not self.hub.owns(user, namespace):
            return refusal(403 if user else 401, "", f"You may not create a model under {namespace}")
        repo_id = f"{namespace}/{body['name']}"
        with self.hub.lock:
            if repo_id in self.hub.repositories:
                return Answer(
                    409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo_id}"}
                )
            private = body.get("private") or body.get("visibility") == "private"
            self.hub.repositories[repo_id] = Repository.create(self.hub.root, repo_id, private=private)
        return Answer(200, {"url": f"{self.hub.url}/{repo_id}", "id": repo_id, "name": repo_id})

    def _yaml(self) -> Answer:
        try:
            card = front_matter(json.loads(self.payload)["content"])
        except ValueError as error:
            return Answer(400, {"errors": [{"message": str(error)}], "warnings": []})
        wrong = [key for key in ("base_model", "license", "library_name") if not isinstance(card.get(key, ""), str)]
        if wrong or not isinstance(card.get("tags", []), list):
            return Answer(400, {"errors": [{"message": f"{wrong or 'tags'} must be text"}], "warnings": []})
        warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
        return Answer(200, {"errors": [], "warnings": warnings})

    def _list(self) -> Answer:
        query = parse_qs(self.target.query)
        rows = []
        for repo_id, repository in sorted(self.hub.repositories.items()):
            author = repo_id.split("/")[0]
            seen = not repository.private or self.hub.owns(self.user(), author)
            if seen and query.get("author", [author]) == [author]:
                row = repository.info(repository.commit_of("main") or "")
                rows += [row] if set(query.get("filter", [])) <= set(row["tags"]) else []
        start, limit = int(query.get("cursor", ["0"])[0]), min(int(query.get("limit", ["1000"])[0]), 5)
        following = self.target._replace(query=re.sub(r"&?cursor=\d+", "", self.target.query))
        link = f'<{self.hub.url}{following.path}?{following.query}&cursor={start + limit}>; rel="next"'
        more = {"Link": link} if start + limit < len(rows) else {}
        return Answer(200, rows[start : start + limit], **more)

    def _preupload(self) -> Answer:
        present = self._repository.files(self._commit_asked())
        files = []
        for file in json.loads(self.payload)["files"]:
            large = file["path"].endswith((".safetensors", ".png"))
            oid = present[file["path"]].oid if file["path"] in present else None
            mode = "lfs" if large else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return Answer(200, {"files": files})

    def _batch(self) -> Answer:
        objects = []
        for row in json.loads(self.payload)["objects"]:
            href = f"{self.hub.url}/lfs/{self.groups['repo']}/{row['oid']}?signature={self.hub.signature}"
            there = self._repository.large(row["oid"]).is_file()
            objects.append(row if there else {**row, "actions": {"upload": {"href": href}}})
        return Answer(200, {"transfer": "basic", "objects": objects})

    def _put(self) -> Answer:
        try:
            self._repository.store(self.groups["sha256"], self.payload)
        except ValueError as error:
            return Answer(400, {"error": str(error)})
        return Answer(200)

    def _commit(self) -> Answer:
        self.hub.before_commit(self.groups["repo"])
        rows = [json.loads(line) for line in self.payload.splitlines()]
        files, deleted, header = {}, [], {}
        for row in rows:
            value = row["value"]
            if row["key"] == "header":
                header = value
            elif row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                if not self._repository.large(value["oid"]).is_file():
                    return Answer(400, {"error": f"the bytes of {value['path']} were not uploaded"})
                files[value["path"]] = pointer(value["oid"], value["size"])
            else:
                deleted.append(value["path"])
        branch, parent = self.groups["revision"], header.get("parentCommit")
        try:
            commit = self._repository.commit(
                branch, header["summary"], files=files, deleted=tuple(deleted), parent=parent
            )
        except StaleParentError as error:
            return refusal(412, "", f"A commit has happened since. Please refresh and try again. ({error})")
        url = f"{self.hub.url}/{self.groups['repo']}/commit/{commit}"
        return Answer(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def _tag(self) -> Answer:
        tag, commit = json.loads(self.payload)["tag"], self._commit_asked()
        if tag in self._repository.refs("tags"):
            return Answer(409, {"error": "Tag reference exists already"})
        self._repository.git("tag", tag, commit)
        return Answer(200)

    def _branch(self) -> Answer:
        if self.groups["revision"] in self._repository.refs("heads"):
            return Answer(409, {"error": "Reference already exists"})
        start = json.loads(self.payload).get("startingPoint", "main")
        self._repository.git("branch", self.groups["revision"], start)
        return Answer(200)

    def _refs(self) -> Answer:
        def rows(kind: str) -> list[dict[str, str]]:
            refs = self._repository.refs(kind).items()
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit} for name, commit in refs]

        return Answer(200, {"branches": rows("heads"), "tags": rows("tags"), "converts": []})

    def _info(self) -> Answer:
        blobs = parse_qs(self.target.query).get("blobs", ["false"])[0].lower() == "true"
        return Answer(200, self._repository.info(self._commit_asked(), blobs=blobs))

    def _tree(self) -> Answer:
        """Return all files: whoever asks for them here asks for those in folders, too."""
        rows = []
        for blob in self._repository.files(self._commit_asked()).values():
            row: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": blob.size, "path": blob.path}
            if blob.sha256:
                row["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
            rows.append(row)
        return Answer(200, rows)

    def _head(self) -> Answer:
        commit = self._commit_asked()
        blob = self._repository.files(commit).get(self.groups["path"])
        if blob is None:
            return refusal(404, "EntryNotFound", f"{self.groups['path']} is not there")
        if blob.sha256 is None:
            data = self._repository.read(blob)
            return self._ranged(data, X_Repo_Commit=commit, ETag=f'"{blob.oid}"')
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # as a CDN, which gets no token
        return Answer(
            302,
            X_Repo_Commit=commit,
            ETag=f'"{blob.sha256}"',
            X_Linked_ETag=f'"{blob.sha256}"',
            X_Linked_Size=str(blob.size),
            Location=f"{elsewhere}/lfs/{self.groups['repo']}/{blob.sha256}?signature={self.hub.signature}",
        )

    _get = _head

    def _large(self) -> Answer:
        if self.token():
            return Answer(400, {"error": "a token was sent to another host"})
        data = self._repository.large(self.groups["sha256"]).read_bytes()
        return self._ranged(data, ETag=f'"{hashlib.md5(data).hexdigest()}"')

    def _ranged(self, data: bytes, **headers: str) -> Answer:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not wanted:
            return Answer(200, data, Accept_Ranges="bytes", **headers)
        start = int(wanted[1])
        self.hub.starts.append((self.groups["repo"], start))
        where = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Answer(206, data[start:], Content_Range=where, **headers)


class Server(ThreadingHTTPServer):
    """Listens on a free port of loopback until it is closed."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: Hub):
        super().__init__(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
        hub.url = f"http://127.0.0.1:{self.server_port}"
        self.hub = hub

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hub.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing of clients that go away."""
