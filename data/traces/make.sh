#!/bin/sh
# Records the traces of this folder anew (small), or larger ones into build/traces; programs that are not installed are left out.
# Usage: data/traces/make.sh small|large HAKMEM [NAME...]
set -eu
size=$1 hakmem=$2
shift 2
only=" $* "
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
case $size in
small) out=$here times=1 ;;
large) out=$root/build/traces times=20 ;;
*) echo "the sizes are small and large, not $size" >&2; exit 2 ;;
esac
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
TMPDIR=. # commands stand in the traces: no names of this machine
export TMPDIR

record() { # NAME PROGRAM ARGS...: keeps the process with most events
    name=$1
    shift
    case $only in "  " | *" $name "*) ;; *) return ;; esac
    command -v "$1" > /dev/null || { echo "$1 is not installed: $name is left out" >&2; return; }
    "$hakmem" record -o "$work/$name.trace.zst" -- "$@" > "$work/said" || { cat "$work/said" >&2; exit 1; }
    mv "$work/$name.trace.zst" "$out/"
    rm -f "$work/$name".*
    ls -l "$out/$name.trace.zst" | awk '{ print $5 " bytes: '"$name"'" }'
}

cat > words.py <<'END'
import collections, json, re, sys
text = (json.__doc__ + re.__doc__ + collections.__doc__) * (2 * int(sys.argv[1]))
tree = {}
for number, word in enumerate(re.findall(r"\w+", text)):
    tree.setdefault(word[:1], {}).setdefault(word, []).append({"at": number, "word": word * 30})
again = json.loads(json.dumps(tree))
print(len(json.dumps(again, indent=1, sort_keys=True)))
END
cat > tables.sql <<END
create table points(id integer primary key, name text, x real, tag text);
with recursive c(i) as (select 1 union all select i + 1 from c where i < 20000 * $times)
  insert into points select i, hex(i * i), i * 0.5, 'tag' || (i % 97) from c;
create index by_tag on points(tag, name);
select tag, count(*), max(name), avg(x) from points group by tag order by 2 desc, 1;
select count(*) from points a join points b on a.tag = b.tag and a.id = b.id + 97;
END
cat > tables.lua <<END
local kept, text = {}, {}
for i = 1, 6000 * $times do
  local item = { id = i, name = ("n"):rep(i % 60), links = {} }
  for k = 1, i % 4 do item.links[k] = kept[math.max(1, i - k * 7)] end
  kept[i % 500 + 1] = item
  text[#text + 1] = item.name
end
print(#table.concat(text))
END
cat > words.pl <<END
my (%seen, @lines);
for my \$i (1 .. 4000 * $times) {
  my \$word = join "", map { chr(97 + (\$i * \$_) % 26) } 1 .. 3 + \$i % 40;
  push @{ \$seen{ substr \$word, 0, 3 } }, \$word;
  @lines = sort @lines[0 .. 50], \$word if \$i % 100 == 0;
}
print scalar(keys %seen), "\n";
END
cat > program.c <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct node { struct node *left, *right; char name[32]; int count; };
static struct node *add(struct node *at, const char *name) {
    if (!at) { at = calloc(1, sizeof *at); if (!at) exit(1); snprintf(at->name, sizeof at->name, "%s", name); }
    int order = strcmp(name, at->name);
    if (order == 0) at->count++;
    else if (order < 0) at->left = add(at->left, name);
    else at->right = add(at->right, name);
    return at;
}
static void show(const struct node *at) { if (at) { show(at->left); printf("%s %d\n", at->name, at->count); show(at->right); } }
int main(void) { struct node *root = 0; char word[32]; while (scanf("%31s", word) == 1) root = add(root, word); show(root); return 0; }
END

git init -q repository
cd repository
git config user.name nobody
git config user.email nobody@localhost
i=0
while [ $i -lt $((100 * times)) ]; do
    i=$((i + 1))
    seq $i 7 $((i % 100 * 300)) > "numbers$((i % 5)).txt"
    git add . && git commit -qm "Numbers up to $i"
done
cd ..

PYTHONMALLOC=malloc
export PYTHONMALLOC
record python3 /usr/bin/python3 -s -S words.py $times
unset PYTHONMALLOC
record sqlite3 sqlite3 :memory: ".read tables.sql"
record gcc gcc -O2 -c program.c -o program.o
record lua lua5.4 tables.lua
record perl perl words.pl
record git git -C repository log -p --stat --all
record node node -e "const m = new Map(); for (let i = 0; i < 300 * $times; i++) m.set('k' + i % 97, JSON.parse(JSON.stringify({i, s: 'x'.repeat(i % 80)}))); console.log(m.size)"

case $only in "  " | *" redis "*) redis=redis-server ;; *) redis=none ;; esac
if command -v $redis > /dev/null && command -v redis-cli > /dev/null; then
    seq 1 $((3000 * times)) | awk '{ printf "SET key:%d %0*d\n", $1 % 901, $1 % 120 + 1, 7
        printf "RPUSH list:%d item%d\nHSET hash:%d f%d %d\n", $1 % 13, $1, $1 % 50, $1 % 40, $1 }' > commands
    echo "SHUTDOWN NOSAVE" >> commands
    (tries=0
     while [ $tries -lt 100 ] && ! redis-cli -s "$work/redis" ping > /dev/null 2>&1; do tries=$((tries + 1)); sleep 0.1; done
     redis-cli -s "$work/redis" < commands > /dev/null 2>&1) &
fi
record redis redis-server --port 0 --unixsocket redis --save "" --dir . --loglevel warning
