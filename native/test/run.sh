#!/bin/sh
# run.sh OUT VARIANT/TEST...: runs C tests, each under several gates, as many at once as there are cores (JOBS=n); a line a run, a
# summary, non-zero status if any failed. Gates may be set from outside: HAKMEM_SS_MEM_LEAN=1 make -C native test
# RUN_WITH: what runs the programs, if not the kernel itself
limit=${TEST_TIMEOUT:-300}

one() { # one LABEL PROGRAM [GATE=value...]
    label=$1
    program=$2
    shift 2
    log=$(mktemp)
    env "$@" timeout "$limit" $RUN_WITH "$program" >"$log" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        said="ok     $label ($(grep -c '^ok ' "$log") checks$(sed -n 's/^skip \(.*\)/; skipped \1/p' "$log"))"
    elif [ $status -eq 124 ]; then
        said="FAILED $label: still running after $limit s"
    else
        said="FAILED $label: exit status $status"
    fi
    [ $status -eq 0 ] || said="$said
$(tail -n 40 "$log" | sed 's/^/    | /')"
    rm -f "$log"
    printf '%s\n' "$said"
}

if [ "$1" = --one ]; then
    shift
    one "$@"
    exit 0
fi

out=$1
shift
export HAK_TEST_PLUGIN="$out/test/plugin_alloc.so"
[ -e "$out/lib/libhakmem.so" ] && export HAK_TEST_LIBRARY="$out/lib/libhakmem.so"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:abort_on_error=1:second_deadlock_stack=1

# MB MODE. A process of 1.7 MB is soon above twice 1 MB; a target of about its size keeps tests between once and twice that, where memory is short.
lean() { echo "'HAKMEM_SS_MEM_LEAN=1' 'HAKMEM_SS_MEM_LEAN_TARGET_MB=$1' 'HAKMEM_SS_MEM_LEAN_DECOMMIT=$2'"; }
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for name in "$@"; do
    echo "'$name' '$out/test/$name'"
    case $name in
    system/* | */test_policy) ;;
    asan/*) echo "'$name LEAN DONTNEED' '$out/test/$name' $(lean 8 DONTNEED)" ;;
    tsan/*) echo "'$name LEAN DONTNEED' '$out/test/$name' $(lean 32 DONTNEED)" ;;
    *) echo "'$name LEAN DONTNEED' '$out/test/$name' $(lean 2 DONTNEED)" ;;
    esac
    case $name in
    system/* | */test_policy | asan/* | tsan/*) ;;
    *) echo "'$name LEAN FREE' '$out/test/$name' $(lean 1 FREE)" ;;
    esac
done | tr '\n' '\0' | xargs -0 -P "${JOBS:-$(nproc)}" -I{} sh -c "sh \"\$0\" --one {}" "$0" | tee "$results"
passed=$(grep -c '^ok ' "$results")
failed=$(grep -c '^FAILED ' "$results")
echo "C tests: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
