#!/bin/sh
# run.sh OUT VARIANT/TEST...: runs C tests, each under several gates; one line a run, a summary, non-zero status if any failed.
# Gates may be set from outside: HAKMEM_SS_MEM_LEAN=1 make -C native test
out=$1
shift
limit=${TEST_TIMEOUT:-300}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export HAK_TEST_PLUGIN="$out/test/plugin_alloc.so"
[ -e "$out/lib/libhakmem.so" ] && export HAK_TEST_LIBRARY="$out/lib/libhakmem.so"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:abort_on_error=1:second_deadlock_stack=1

passed=0
failed=0
run() { # run LABEL PROGRAM [GATE=value...]
    label=$1
    program=$2
    shift 2
    env "$@" timeout "$limit" "$program" >"$log" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok     $label ($(grep -c '^ok ' "$log") checks$(sed -n 's/^skip \(.*\)/; skipped \1/p' "$log"))"
    else
        failed=$((failed + 1))
        if [ $status -eq 124 ]; then
            echo "FAILED $label: still running after $limit s"
        else
            echo "FAILED $label: exit status $status"
        fi
        sed 's/^/    | /' "$log" | tail -n 40
    fi
}

lean="HAKMEM_SS_MEM_LEAN=1 HAKMEM_SS_MEM_LEAN_TARGET_MB=1 HAKMEM_SS_MEM_LEAN_DECOMMIT"
for name in "$@"; do
    program=$out/test/$name
    run "$name" "$program"
    case $name in
    system/*) ;;
    asan/* | tsan/*) run "$name LEAN DONTNEED" "$program" $lean=DONTNEED ;;
    *)
        run "$name LEAN DONTNEED" "$program" $lean=DONTNEED
        run "$name LEAN FREE" "$program" $lean=FREE
        ;;
    esac
done
echo "C tests: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
