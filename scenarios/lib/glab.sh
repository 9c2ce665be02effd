# In the guest: drives a project from its beginning to its end with glab and git, clients that nobody here wrote. Prints a word for each
# thing that came out as it must.
# shellcheck shell=bash
set -eu
host=rave.local:3002 mara="{{account.mara.token}}" root="{{account.root.token}}"
HOME=$(mktemp -d)
trap 'rm -rf "$HOME"' EXIT
cd "$HOME"
export HOME GITLAB_HOST="$host" GITLAB_TOKEN="$mara" NO_PROMPT=1 NO_COLOR=1 GIT_TERMINAL_PROMPT=0
export GIT_AUTHOR_NAME=Mara GIT_AUTHOR_EMAIL=mara@rave.local GIT_COMMITTER_NAME=Mara GIT_COMMITTER_EMAIL=mara@rave.local
umask 077
mkdir -p .config/glab-cli
cat >.config/glab-cli/config.yml <<END
check_update: false
hosts:
    $host:
        api_host: $host/gitlab
        api_protocol: https
        git_protocol: https
END
# It reads no remote with a path and a port, so it is told which project.
of=(-R rave/tool)
whole=https://mara:$mara@$host/gitlab/rave/tool.git
push() { git push -q "$whole" "$1"; }
commit() { git add "$1" && git commit -q -m "$1"; }

git init -q -b main
glab repo create tool --group rave --private --defaultBranch main | grep -o 'gitlab/rave/tool'
printf 'test:\n  script:\n    - test -e a && echo it is there\n' >.gitlab-ci.yml
commit .gitlab-ci.yml
push main
git checkout -q -b feature
echo a >a
commit a
push feature
for _ in $(seq 120); do
    glab ci status "${of[@]}" --branch feature >found 2>&1 || true
    grep -qi 'pipeline state: \(success\|failed\)' found && break
    sleep 0.5
done
grep -io 'state: success' found
glab ci list "${of[@]}" >found
number=$(grep -o '(success) • #[0-9]*' found | grep -o '[0-9]*$')
glab api "projects/rave%2Ftool/pipelines/$number/jobs" | grep -o '"name":"test"'
glab api -X POST projects/rave%2Ftool/merge_requests -f source_branch=feature -f target_branch=main -f title='A file' >/dev/null
glab mr list "${of[@]}" | grep -o 'A file'
glab mr merge 1 "${of[@]}" --yes >/dev/null
glab mr view 1 "${of[@]}" | grep -q merged && echo merged
git fetch -q "$whole" main
git show FETCH_HEAD:a
# Only an owner deletes.
glab repo delete rave/tool --yes 2>&1 | grep -q 403 && echo 403
GITLAB_TOKEN=$root glab repo delete rave/tool --yes >/dev/null
glab api projects/rave%2Ftool 2>&1 | grep -q 404 && echo 404
