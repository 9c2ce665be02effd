# shellcheck shell=sh
# What a guest is asked after a failure, in one go: a command each would take seconds where it is emulated. `MARK` begins each part. What is
# not there says so, and what hangs is given up.
part() { printf '\n%s %s\n' 'MARK' "$1"; }
ask() { echo "# $*"; timeout 2 "$@" 2>&1 | head -n 3000; echo; }
has() { command -v "$1" >/dev/null; }
part state; ask date -u; ask uptime; ask uname -a; ask cat /proc/cmdline
part units
if has systemctl; then
    ask systemctl --no-pager --full list-units --failed
    ask systemctl --no-pager --full list-jobs
    ask systemctl --no-pager --full list-units --all
else
    echo 'there is no systemctl'
fi
part processes
if ps -eo pid >/dev/null 2>&1 && ps --version >/dev/null 2>&1; then
    ask ps -eo pid,ppid,user,stat,etimes,time,rss,wchan:20,args
else
    ask ps
fi
part sockets
if has ss; then ask ss -anptu; elif has netstat; then ask netstat -antu; else ask cat /proc/net/tcp; fi
part disk; ask df -k; ask df -i; ask cat /proc/mounts
part memory; ask cat /proc/meminfo; ask cat /proc/pressure/cpu /proc/pressure/io /proc/pressure/memory; ask grep oom_kill /proc/vmstat
part kernel; dmesg 2>&1 | tail -n 400
part failed-units
if has systemctl; then
    for unit in $(systemctl --no-pager --plain --no-legend list-units --failed 2>/dev/null | cut -d ' ' -f 1 | head -n 10); do
        ask systemctl --no-pager --full --lines 40 status "$unit"
    done
fi
part end
