# How many instructions each of a tracer's programs takes a connection: a job of peerbench, to stand in its vm/. With the clock that counts
# instructions a nanosecond of run_time_ns is one; about 50 of a run are the kernel's own reading of that clock.
. "${0%/*}/lib.sh"; . "${0%/*}/../params"
topology; base_rules; start_server
programs() {
  bpftool -j prog show | python3 -c '
import json, sys
for p in json.load(sys.stdin):
    if p.get("run_cnt"): print(p["id"], p["name"], p["run_time_ns"], p["run_cnt"])'
}
difference() { # port
  python3 - $N $1 <<'P'
import sys
n, port = float(sys.argv[1]), sys.argv[2]
read = lambda name: {line.split()[0]: line.split()[1:] for line in open(name)}
before, after = read('/tmp/before'), read('/tmp/after')
all_ns = all_runs = 0
for id, (name, ns, runs) in sorted(after.items(), key=lambda item: -int(item[1][1])):
    old = before.get(id, [name, 0, 0])
    ns, runs = int(ns) - int(old[1]), int(runs) - int(old[2])
    if runs:
        print(f"{port} {name:24} runs {runs / n:6.2f}  a run {ns / runs:8.1f}  a connection {ns / n:9.1f}")
    all_ns, all_runs = all_ns + ns, all_runs + runs
print(f"{port} all {all_runs / n:.2f} runs, {all_ns / n:.0f} instructions a connection")
P
}
packet_path() { # port
  local used=$(usec load)
  load $N $1 >/tmp/load
  echo "$1 $2 packet path: $(( ($(usec load) - used) * 1000 / N )) instructions a connection"
}
for tracer in $TRACERS; do
  start_tracer $tracer 8080 /tmp/t
  kill -0 $TPID || { log "$tracer died: $(head -c 300 $ERR)"; continue; }
  load 50 8080 $WIN2 >/dev/null; load 50 9090 >/dev/null; sleep 1
  for port in 8080 9090; do
    sysctl -qw kernel.bpf_stats_enabled=1
    programs >/tmp/before; load $N $port >/tmp/load; programs >/tmp/after
    sysctl -qw kernel.bpf_stats_enabled=0
    difference $port; sleep 1
    packet_path $port $tracer; drain
  done
  stop_tracer
done
packet_path 8080 none
kill $SRV
