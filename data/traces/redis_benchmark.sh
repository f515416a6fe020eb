#!/bin/sh
# redis-server under redis-benchmark: hakmem record --cost 5 -- data/traces/redis_benchmark.sh 100000
# The server takes this process over, so its CPU time is the server's alone; the client is not recorded.
set -eu
requests=${1:-100000}
work=$(mktemp -d)
(
    unset LD_PRELOAD
    tries=0
    while [ $tries -lt 100 ] && ! redis-cli -s "$work/redis" ping; do tries=$((tries + 1)); sleep 0.1; done
    redis-benchmark -s "$work/redis" -n "$requests" -t set,get,lpush,sadd,hset -d 100 -r 10000 -q
    redis-cli -s "$work/redis" shutdown nosave
    rm -rf "$work"
) > /dev/null 2>&1 &
exec redis-server --port 0 --unixsocket "$work/redis" --save "" --dir "$work" --loglevel warning
