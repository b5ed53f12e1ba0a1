package upgrade

// replace puts a file in the place of another, if the upgrade is still pending: $1 is the new one, $3 the state directory and
// $4 the number of the upgrade. It is on the disk before it has the name.
const replace = `set -e
new=$2.new.$$
trap 'rm -f "$new"' EXIT
cp "$1" "$new"
chmod 755 "$new"
sync "$new" 2>/dev/null || sync
{ read -r id && [ "$id" = "$4" ]; } <"$3/pending" # nobody has given up waiting meanwhile
mv -f "$new" "$2"
sync "${2%/*}" 2>/dev/null || sync`

// reported runs a script and leaves its exit status, and what it says, in a directory: $1 is that, $2 the script, and what
// follows is given to it.
const reported = `dir=$1 script=$2
shift 2
status=0
sh -c "$script" sh "$@" >"$dir/said" 2>&1 || status=$?
echo "$status" >"$dir/code.new"
mv -f "$dir/code.new" "$dir/code"`

// restore puts the old binary back, if the upgrade is still pending: $1 is the state directory, $2 the binary, $3 the
// number of the upgrade, and what follows starts the agent anew.
const restore = `set -e
[ -f "$1/pending" ] || exit 0
{ read -r id && read -r version; } <"$1/pending"
[ "$id" = "$3" ] || exit 0
old=$2.old.$$
cp "$1/old" "$old"
chmod 755 "$old"
sync "$old" 2>/dev/null || sync
mv -f "$old" "$2"
printf '%s\n' "$version" >"$1/undone"
rm -f "$1/pending" "$1/old"
shift 3
exec "$@"`

// startAlone starts an agent that no service manager has started: $1 is its process, if it is still there, $2 its binary,
// and what follows its command line.
const startAlone = `case $(readlink "/proc/$1/exe") in
"$2" | "$2 (deleted)") kill -9 "$1" ;;
esac
shift 2
exec "$@"`
