"""Drives a forge with python-gitlab, from the project to its end. Arguments: URL; tokens come in the environment."""

import base64
import os
import sys
import time

import gitlab


def until(what, probe):
    deadline = time.monotonic() + 60
    while not (found := probe()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def refused(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except gitlab.exceptions.GitlabError as error:
        assert error.response_code == code, error
        return error
    raise AssertionError(f"not refused: {call}")


root, mara, dana, vera, otto = (gitlab.Gitlab(sys.argv[1], private_token=os.environ[name]) for name in ("ROOT", "MARA", "DANA", "VERA", "OTTO"))
nobody = gitlab.Gitlab(sys.argv[1], private_token="glpat-nobody-knows-this-one")

assert root.version()[0] != "unknown"
refused(401, nobody.auth)
dana.auth()
assert dana.user.username == "dana" and not root.users.list(username="dana")[0].is_admin

group = mara.groups.get("rave")
assert {member.username: member.access_level for member in group.members.list(get_all=True)}["vera"] == 20
assert group.members_all.get(dana.user.id).access_level == 30

project = mara.projects.create({"name": "from python", "namespace_id": group.id, "initialize_with_readme": True})
assert project.path_with_namespace == "rave/from-python" and project.default_branch == "main", project
assert "has already been taken" in str(refused(400, mara.projects.create, {"name": "from python", "namespace_id": group.id}))
refused(404, otto.projects.get, "rave/from-python")
assert vera.projects.get("rave/from-python").id == project.id

mine = dana.projects.get(project.id)
branch = mine.branches.create({"branch": "feature/one", "ref": "main"})
assert branch.commit["id"] == mine.branches.get("main").commit["id"]
assert "already exists" in str(refused(400, mine.branches.create, {"branch": "feature/one", "ref": "main"}))
refused(403, vera.projects.get(project.id).branches.create, {"branch": "x", "ref": "main"})
ci = "unit:\n  script:\n    - python3 -c 'print(6 * 7)' || echo 42\n"
commit = mine.commits.create({
    "branch": "feature/one",
    "commit_message": "Add two files\n\nand a third",
    "actions": [
        {"action": "create", "file_path": ".gitlab-ci.yml", "content": ci},
        {"action": "create", "file_path": "bin/x", "content": base64.b64encode(bytes(range(256))).decode(), "encoding": "base64"},
        {"action": "chmod", "file_path": "bin/x", "execute_filemode": True},
        {"action": "move", "previous_path": "README.md", "file_path": "docs/README.md"},
    ],
})
assert commit.title == "Add two files" and len(commit.parent_ids) == 1
assert mine.files.raw(file_path="bin/x", ref="feature/one") == bytes(range(256))
assert mine.files.get(file_path="bin/x", ref="feature/one").execute_filemode
assert {entry["path"] for entry in mine.repository_tree(ref="feature/one", recursive=True, get_all=True)} >= {"bin", "bin/x", "docs/README.md"}
assert len(mine.repository_compare("main", "feature/one")["diffs"]) == 3
refused(400, mine.commits.create, {"branch": "feature/one", "commit_message": "again", "actions": [{"action": "create", "file_path": "bin/x", "content": ""}]})
refused(403, mine.commits.create, {"branch": "main", "commit_message": "no", "actions": [{"action": "create", "file_path": "y", "content": ""}]})
file = mine.files.create({"file_path": "a b.txt", "branch": "feature/one", "content": "1", "commit_message": "one"})
assert file.file_path == "a b.txt"

request = mine.mergerequests.create({"source_branch": "feature/one", "target_branch": "main", "title": "One", "remove_source_branch": True})
assert request.state == "opened" and request.author["username"] == "dana"
note = request.notes.create({"body": "looks *good*"})
assert [found.id for found in request.notes.list(get_all=True)] == [note.id]
assert len(request.changes()["changes"]) == 4

head = mine.branches.get("feature/one").commit["id"]
pipeline = until("a pipeline", lambda: mine.pipelines.list(sha=head, get_all=True))[0]
until("its end", lambda: mine.pipelines.get(pipeline.id).status in ("success", "failed"))
job = mine.pipelines.get(pipeline.id).jobs.list(get_all=True)[0]
assert job.status == "success" and b"\n42\n" in mine.jobs.get(job.id).trace(), mine.jobs.get(job.id).trace()
refused(400, mine.pipelines.create, {"ref": "main"})
assert mine.pipelines.create({"ref": "feature/one", "variables": [{"key": "A", "value": "b"}]}).source == "api"
assert request.pipelines.list(get_all=True)[-1].id == pipeline.id

until("mergeable", lambda: mine.mergerequests.get(request.iid).detailed_merge_status == "mergeable")
theirs = mara.projects.get(project.id).mergerequests.get(request.iid)
refused(409, theirs.merge, sha="0" * 40)
theirs.merge(sha=head)
assert mine.mergerequests.get(request.iid).state == "merged"
assert mine.branches.list(get_all=True)[0].name == "main"

member = mara.projects.get(project.id).members.create({"user_id": root.users.list(username="otto")[0].id, "access_level": 20})
assert otto.projects.get(project.id).name == "from python"
member.delete()
refused(404, otto.projects.get, project.id)

for number in range(25):
    mara.projects.get(project.id).branches.create({"branch": f"b{number}", "ref": "main"})
assert len(list(mine.branches.list(iterator=True))) == 26
assert len(mine.branches.list(page=2, per_page=20)) == 6

user = root.users.create({"email": "new@rave.local", "username": "new", "name": "New", "password": "sesame-sesame", "skip_confirmation": True})
refused(409, root.users.create, {"email": "new@rave.local", "username": "new2", "name": "New", "password": "sesame-sesame"})
token = user.personal_access_tokens.create({"name": "t", "scopes": ["read_api"]})
reader = gitlab.Gitlab(sys.argv[1], private_token=token.token)
reader.auth()
assert "insufficient_scope" in str(refused(403, reader.projects.create, {"name": "mine"}).response_body)
user.block()
refused(403, reader.projects.list)
user.unblock()
reader.projects.list()
key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE2VJz7mrGeCVwKSyp9bV0FbWAB+gTNOBZUWuZ5nBLzR"
dana.user.keys.create({"title": "laptop", "key": key})
assert [found.key for found in root.users.get(dana.user.id).keys.list(get_all=True)] == [key]

runner = root.runners_all.list(get_all=True)[0] if hasattr(root, "runners_all") else root.runners.all()[0]
assert runner.status == "online" and root.runners.get(runner.id).tag_list == ["linux"]
root.projects.delete(project.id)
refused(404, root.projects.get, project.id)
print("done")
