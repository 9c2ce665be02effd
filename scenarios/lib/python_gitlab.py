# Beside QEMU: drives a project from its beginning to its end with python-gitlab, a client that nobody here wrote. Prints what came of it.
import json
import socket
import time

import gitlab

URL = "https://rave.local:3002/gitlab"

# rave.local is the machine's own address, for this program only.
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **named: look_up("{{machine.address}}" if host == "rave.local" else host, *more, **named)


def client(token):
    return gitlab.Gitlab(URL, private_token=token, ssl_verify="{{guest.ca}}")


def until(look, wanted, why):
    end = time.monotonic() + 90
    while True:
        found = look()
        if found in wanted:
            return found
        if time.monotonic() > end:
            raise SystemExit(f"{why}: {found}, not {' or '.join(wanted)}")
        time.sleep(0.5)


mara, root = client("{{account.mara.token}}"), client("{{account.root.token}}")
mara.auth()
group = mara.groups.get("rave")
project = mara.projects.create(dict(name="driven", namespace_id=group.id, visibility="private", initialize_with_readme=True))
project.branches.create(dict(branch="change", ref="main"))
ci = "test:\n  script:\n    - echo from the runner\n"
commit = project.commits.create(dict(branch="change", commit_message="A pipeline", actions=[dict(action="create", file_path=".gitlab-ci.yml", content=ci)]))
request = project.mergerequests.create(dict(source_branch="change", target_branch="main", title="A pipeline"))
pipeline = until(lambda: next((found.status for found in project.pipelines.list(sha=commit.id)), "none"), ("success", "failed"), "the pipeline")
jobs = project.pipelines.get(project.pipelines.list(sha=commit.id)[0].id).jobs.list()
log = project.jobs.get(jobs[0].id).trace().decode()
until(lambda: project.mergerequests.get(request.iid).detailed_merge_status, ("mergeable",), "the merge request")
request.merge(sha=commit.id)
merged = project.mergerequests.get(request.iid).state
try:
    project.branches.create(dict(branch="main", ref="main"))
    twice = "made"
except gitlab.exceptions.GitlabCreateError as error:
    twice = error.response_code
root.projects.get(project.id).delete()


def gone():
    try:
        return root.projects.get(project.id).path
    except gitlab.exceptions.GitlabGetError as error:
        return str(error.response_code)


print(json.dumps(dict(user=mara.user.username, head=commit.id == request.sha, pipeline=pipeline,
                      job=jobs[0].status, log="from the runner" in log, merged=merged, twice=twice, deleted=until(gone, ("404",), "the project"))))
