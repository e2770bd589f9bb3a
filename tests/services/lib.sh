# What the service starters share: where things are cached, free ports, waiting, and stopping exactly one process.
# Sourced by kafka, minio and tests/run; needs bash with set -euo pipefail.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate
mkdir -p "$cache"

# free_port [EXCEPT]: prints a port on which nobody listens on 127.0.0.1. Below the range that the kernel gives to
# outgoing connections, so that nobody takes it by chance between here and the server's bind.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
        [ "$port" = "${1:-}" ] && continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    echo "no free port found on 127.0.0.1" >&2
    return 1
}

# wait_for NAME PID LOG COMMAND...: until COMMAND succeeds; fails when the process ends or after a minute.
wait_for() {
    local name=$1 pid=$2 log=$3; shift 3
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && return
        kill -0 "$pid" 2>/dev/null || { echo "$name: ended before it served:" >&2; tail -n 30 "$log" >&2; return 1; }
        sleep 0.1
    done
    echo "$name: did not serve within a minute:" >&2; tail -n 30 "$log" >&2
    kill "$pid" 2>/dev/null || true
    return 1
}

# running PIDFILE MARK: whether the process in PIDFILE lives and its command line still holds MARK (a pid may have been
# given to somebody else since).
running() {
    [ -f "$1" ] && tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$1")/cmdline" | grep -qF -- "$2"
}

# stop_pid NAME PIDFILE MARK: ends that process if it is running, first politely, after ten seconds for good.
stop_pid() {
    local name=$1 file=$2 mark=$3 pid
    if running "$file" "$mark"; then
        pid=$(cat "$file")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -0 "$pid" 2>/dev/null && { echo "$name: did not stop in ten seconds, killed" >&2; kill -9 "$pid" || true; }
    fi
    rm -f "$file"
}

# step NAME COMMAND...: runs a command, says how long it took, and remembers that for step_times.
steps=()
step() {
    local name=$1 begun=$SECONDS status=0; shift
    echo "== $name"
    "$@" || status=$?
    local took=$((SECONDS - begun)) verdict=
    [ "$status" -eq 0 ] || verdict=" FAILED ($status)"
    steps+=("$(printf '%5d s  %s%s' "$took" "$name" "$verdict")")
    echo "== $name: $took s$verdict"
    return "$status"
}
step_times() { [ ${#steps[@]} -eq 0 ] || printf '%s\n' "${steps[@]}"; }

# loud MESSAGE: what nobody should overlook.
loud() { printf '!!!!!!!! %s\n' "$1" >&2; }
