"""A local stand-in for the W&B server: as much of its protocol as the real client needs to log and to sync runs, to
read them back, and to save workspaces and reports.

It listens on the loopback interface only and keeps what it is sent in memory. It answers the GraphQL operations and
the uploads of wandb 0.31; what it does not know is refused, and its name kept in `Server.unknown`.
"""

import base64
import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

ENTITY = "tester"
API_KEY = "0123456789abcdef" * 3
"""The one key that is accepted."""

_TIME = "2000-01-01T00:00:00Z"
_LAST_PAGE = {"endCursor": None, "hasNextPage": False}
_AUTHORIZATION = "Basic " + base64.b64encode(f"api:{API_KEY}".encode()).decode()


@dataclass
class Artifact:
    """An artifact as it was declared, and the contents of its files by name once they are uploaded."""

    type: str
    name: str
    project: str
    metadata: dict[str, Any]
    aliases: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


@dataclass
class Run:
    """A run as it was sent.

    Attributes:
        stream: file name -> line number -> line, of the files that grow while the run lasts.
        files: file name -> contents, of the files uploaded whole.
        exit_code: None until the run has ended.
    """

    run_id: str
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    stream: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        lines = self.stream.get("wandb-history.jsonl", {})
        return [json.loads(lines[number]) for number in sorted(lines)]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.files.get("wandb-summary.json", b"{}"))


@dataclass
class View:
    """A saved workspace (type "project-view") or report (type "runs")."""

    view_id: str
    type: str
    project: str
    name: str
    display_name: str
    description: str
    spec: dict[str, Any]


class Server:
    """What the client sent.

    Args:
        url: where the server listens.

    Attributes:
        runs: id -> run.
        views: id -> workspace or report.
        unknown: names of operations, or paths, that were asked for and are not known.
        refused: names of operations to answer with an error.
        links: (artifact, collection of a registry, aliases there) of all that was linked.
    """

    def __init__(self, url: str):
        self.url = url
        self.runs: dict[str, Run] = {}
        self.views: dict[str, View] = {}
        self.unknown: list[str] = []
        self.refused: set[str] = set()
        self.links: list[tuple[str, str, list[str]]] = []
        self._artifacts: dict[str, Artifact] = {}
        self._projects: set[str] = set()
        self._lock = threading.Lock()

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The response to a GraphQL `operation`."""
        method = getattr(self, f"_{operation}", None)
        if method is None:
            self.unknown.append(operation)
        if method is None or operation in self.refused:
            return {"errors": [{"message": f"{operation} is refused"}]}
        with self._lock:
            return {"data": method(variables)}

    def append(self, run_id: str, body: dict[str, Any]) -> None:
        """Takes in what a run added to its growing files."""
        run = self.runs[run_id]
        for name, part in (body.get("files") or {}).items():
            run.stream.setdefault(name, {}).update(enumerate(part["content"], start=part["offset"]))
        if body.get("complete"):
            run.exit_code = body["exitcode"]

    def store(self, path: str, contents: bytes) -> None:
        """Takes in a file uploaded to one of the addresses that `answer` gave out."""
        kind, owner, name = path.lstrip("/").split("/", 2)
        files = self.runs[owner].files if kind == "run" else self._artifacts[owner].files
        files[unquote(name)] = contents

    def _Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        teams: dict[str, Any] = {"edges": []}
        return {"viewer": {"id": "user", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": teams}}

    def _GetDefaultEntity(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "user", "entity": ENTITY}}

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.setdefault(given["name"], Run(given["name"]))
        run.project = given["project"] or run.project
        self._projects.add(run.project)
        run.group = given["groupName"] or run.group
        run.job_type = given["jobType"] or run.job_type
        run.name = given["displayName"] or run.name
        run.tags = given["tags"] or run.tags
        run.config.update({key: item["value"] for key, item in json.loads(given["config"] or "{}").items()})
        project = {"id": "project", "name": run.project, "entity": {"id": "entity", "name": ENTITY}}
        bucket = {"id": f"bucket-{run.run_id}", "name": run.run_id, "displayName": run.name, "project": project}
        return {"upsertBucket": {"bucket": {**bucket, "config": "{}", "historyLineCount": 0}, "inserted": True}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"model": None}

    def _GetProjects(self, given: dict[str, Any]) -> dict[str, Any]:
        names = sorted(self._projects) if given["entity"] == ENTITY else []
        absent = {"__typename": "Project", "createdAt": _TIME, "isBenchmark": False, "user": None}
        edges = [{"node": {**absent, "id": name, "name": name, "entityName": ENTITY}} for name in names]
        return {"models": {"edges": edges, "pageInfo": {"__typename": "PageInfo", **_LAST_PAGE}}}

    def _CreateProject(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["input"]["name"]
        self._projects.add(name)
        project = {"id": name, "name": name, "entityName": ENTITY, "description": None, "access": None, "views": None}
        return {"result": {"project": project, "model": project, "inserted": True}}

    def _UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        """Replaces the view with the given id; without one, makes a new one, whatever its name."""
        if given["projectName"] not in self._projects or given["entityName"] != ENTITY:
            raise KeyError(f"no project {given['entityName']}/{given['projectName']}")
        view_id = given.get("id") or f"view{len(self.views)}"
        inserted = view_id not in self.views
        texts = (given["type"], given["projectName"], given["name"], given["displayName"], given["description"] or "")
        self.views[view_id] = View(view_id, *texts, json.loads(given["spec"]))
        return {"upsertView": {"view": self._view(self.views[view_id]), "inserted": inserted}}

    _upsertView = _UpsertView2

    def _View(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._views(given["projectName"], given["viewType"], given["viewName"])

    def _ProjectViews(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._views(given["project"], given.get("viewType", "runs"), given["viewName"])

    def _views(self, project: str, kind: str, name: str | None) -> dict[str, Any]:
        if project not in self._projects:
            return {"project": None}
        here = [view for view in self.views.values() if (view.project, view.type) == (project, kind)]
        edges = [{"node": self._view(view), "cursor": view.view_id} for view in here if name in (None, view.name)]
        return {"project": {"allViews": {"edges": edges, "pageInfo": _LAST_PAGE}}}

    def _view(self, view: View) -> dict[str, Any]:
        project = {"id": view.project, "name": view.project, "entityName": ENTITY}
        described = {"displayName": view.display_name, "description": view.description, "spec": json.dumps(view.spec)}
        times = {"createdAt": _TIME, "updatedAt": _TIME}
        user = {"username": ENTITY, "photoUrl": None, "email": ""}
        named = {"id": view.view_id, "name": view.name, "type": view.type}
        return {**named, **described, **times, "project": project, "user": user}

    def _Run(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        found = run is not None and (given["entity"], given["project"]) == (ENTITY, run.project)
        return {"project": {"run": self._described(run) if run is not None and found else None}}

    def _Runs(self, given: dict[str, Any]) -> dict[str, Any]:
        """The filter is one value per attribute; runs come in the order of their start."""
        attributes = {"group": "group", "jobType": "job_type"}
        asked = {attributes[key]: value for key, value in json.loads(given["filters"] or "{}").items()}
        here = [run for run in self.runs.values() if (ENTITY, run.project) == (given["entity"], given["project"])]
        found = [run for run in here if all(getattr(run, key) == value for key, value in asked.items())]
        edges = [{"node": self._described(run), "cursor": run.run_id} for run in found]
        described = {"internalId": "1", "runCount": len(found), "readOnly": False}
        return {"project": {**described, "runs": {"edges": edges, "pageInfo": _LAST_PAGE}}}

    def _described(self, run: Run) -> dict[str, Any]:
        state = "running" if run.exit_code is None else "failed" if run.exit_code else "finished"
        named = {"id": f"bucket-{run.run_id}", "name": run.run_id, "displayName": run.name, "state": state}
        grouped = {"group": run.group, "jobType": run.job_type, "tags": run.tags, "projectId": "1"}
        config = json.dumps({key: {"value": value} for key, value in run.config.items()})
        values = {"config": config, "summaryMetrics": json.dumps(run.summary), "systemMetrics": "{}"}
        absent = dict.fromkeys(("sweepName", "commit", "description", "notes", "historyKeys"))
        user = {"user": {"name": ENTITY, "username": ENTITY}}
        counted = {"readOnly": False, "createdAt": _TIME, "heartbeatAt": _TIME, "historyLineCount": len(run.history)}
        return {**absent, **user, **named, **grouped, **values, **counted}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/run/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        declared = given["input"]
        artifact = Artifact(
            type=declared["artifactTypeName"],
            name=declared["artifactCollectionName"],
            project=declared["projectName"],
            metadata=json.loads(declared["metadata"] or "{}"),
            aliases=[alias["alias"] for alias in declared["aliases"]],
        )
        artifact_id = f"artifact{len(self._artifacts)}"
        self._artifacts[artifact_id] = artifact
        self.runs[declared["runName"]].artifacts.append(artifact)
        sequence = {"id": f"sequence-{artifact.name}", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": artifact_id, "state": "PENDING", "artifactSequence": sequence}}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        artifact_id = given["artifactID"]
        file: dict[str, Any] = {"id": f"file-{artifact_id}"}
        if given["includeUpload"]:
            file.update(uploadHeaders=[], uploadUrl=f"{self.url}/artifact/{artifact_id}/{given['name']}")
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{artifact_id}", "file": file}}}

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for file in given["input"]["artifactFiles"]:
            path = f"artifact/{file['artifactID']}/{file['name']}"
            upload = {"uploadUrl": f"{self.url}/{path}", "uploadHeaders": [], "uploadMultipartUrls": None}
            edges.append({"node": {**upload, "storagePath": path, "artifact": {"id": file["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self._artifacts[given["artifactID"]].committed = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}

    def _ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifacts[given["id"]]
        entity = {"id": "entity", "name": ENTITY}
        project = {"id": "project", "internalId": "UHJvamVjdDox", "name": artifact.project, "entity": entity}
        sequence = {"__typename": "ArtifactSequence", "id": "sequence", "name": artifact.name, "project": project}
        absent = dict.fromkeys(("description", "metadata", "historyStep", "commitHash", "updatedAt"))
        sizes = {"size": 0, "fileCount": len(artifact.files), "versionIndex": 0, "ttlDurationSeconds": -2}
        described = {"id": given["id"], "artifactSequence": sequence, "artifactType": {"name": artifact.type}}
        fixed = {"digest": "", "createdAt": "2000-01-01T00:00:00Z", "ttlIsInherited": False, "tags": [], "aliases": []}
        return {"artifact": {**absent, **sizes, **described, **fixed, "state": "COMMITTED"}}

    def _ArtifactMembershipByName(self, given: dict[str, Any]) -> dict[str, Any]:
        name, _, alias = given["name"].partition(":")
        found = [
            each for each, artifact in self._artifacts.items() if artifact.name == name and alias in artifact.aliases
        ]
        member = self._member(found[-1], name, given["project"], ENTITY) if found else None
        return {"project": {"artifactCollectionMembership": member}}

    def _FetchOrgInfoFromEntity(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": {"name": "org", "orgEntity": {"name": "org-entity"}}, "user": None}}

    def _LinkArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        to = given["input"]
        collection = f"{to['entityName']}/{to['projectName']}/{to['artifactPortfolioName']}"
        self.links.append((to["artifactID"], collection, [each["alias"] for each in to["aliases"]]))
        member = self._member(to["artifactID"], to["artifactPortfolioName"], to["projectName"], to["entityName"])
        return {"result": {"versionIndex": 0, "artifactMembership": member}}

    def _member(self, artifact_id: str, collection: str, project: str, entity: str) -> dict[str, Any]:
        """An artifact in a collection."""
        described = {"id": "project", "internalId": "UHJvamVjdDox", "name": project, "entity": {"name": entity}}
        artifact = self._ArtifactByID({"id": artifact_id})["artifact"]
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": "membership",
            "versionIndex": 0,
            "createdAt": "2000-01-01T00:00:00Z",
            "aliases": [],
            "artifactCollection": {"__typename": "ArtifactPortfolio", "name": collection, "project": described},
            "artifact": {**artifact, "metadata": json.dumps(self._artifacts[artifact_id].metadata)},
        }


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_PUT(self) -> None:
            server.store(self.path, self._body())
            self._send({})

        def do_POST(self) -> None:
            stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
            if self.headers["Authorization"] != _AUTHORIZATION:
                self._send({"errors": [{"message": "invalid API key"}]}, status=401)
            elif stream:
                server.append(stream[1], json.loads(self._body()))
                self._send({"limits": {}})
            elif self.path == "/graphql":
                body = json.loads(self._body())
                named = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
                self._send(server.answer(named[1] if named else "", body.get("variables") or {}))
            else:
                server.unknown.append(self.path)
                self._send({}, status=404)

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            return gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body

        def _send(self, document: dict[str, Any], status: int = 200) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """A server for the time of the block; afterwards its port refuses connections and its threads have ended."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as listener:
        listener.daemon_threads = False  # so that closing waits for the requests in hand
        server = Server(f"http://127.0.0.1:{listener.server_port}")
        listener.RequestHandlerClass = _handler(server)
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
