// Package sysroot is a root directory in which scripts for guests really run: the machine's own programs, with /etc, /run,
// /var and /usr/local of its own, and with fakes of what would reach a service manager or a disk.
//
// A process in it sees the machine's /proc and network. It is root there, in a user namespace if it is not root here.
package sysroot

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Root is such a directory. What is in local/sbin goes before all other programs.
type Root struct {
	Dir   string
	Shell string // of scripts, as seen in there

	bare bool // of the machine's programs
	t    testing.TB
}

// Recorder is a program that appends its name and arguments to the file calls.
const Recorder = "#!/bin/sh\necho \"${0##*/} $*\" >>/calls\n"

// systemctl knows one service, which runs while there is a file active.
const systemctl = Recorder + `case "$*" in
*daemon-reload*) ;;
*is-active*) [ -e /active ] ;;
*is-enabled*) [ -e /enabled ] ;;
*enable*) : >/enabled ;;
*disable*) rm -f /enabled /active ;;
*start*) : >/active ;;
esac
`

// fakes are the programs that a script must not find the real one of. The volume with the seed is /seed.
var fakes = map[string]string{
	"blkid":  "#!/bin/sh\ncase \"$*\" in *LABEL=CIDATA*) [ ! -d /decoy ] || echo /decoy; [ ! -d /seed ] || echo /seed ;; esac\n",
	"mount":  "#!/bin/sh\necho mount \"$@\" >>/calls\nexec /machine/bin/mount -o bind \"$3\" \"$4\"\n",
	"umount": "#!/bin/sh\nexec /machine/bin/umount \"$@\"\n",
	"uname":  "#!/bin/sh\n/machine/bin/cat /processor\n",
}

// New makes a root of a machine with that name of its processor, as uname -m has it, and no service manager.
func New(t testing.TB, machine string) *Root {
	t.Helper()
	r := &Root{Dir: t.TempDir(), Shell: "/bin/sh", t: t}
	for _, dir := range []string{"etc/systemd/system", "etc/init.d", "run", "var/lib", "usr", "proc", "dev", "tmp", "local/bin", "local/sbin"} {
		if err := os.MkdirAll(filepath.Join(r.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range fakes {
		r.Write("local/sbin/"+name, text, 0o755)
	}
	r.Write("processor", machine+"\n", 0o644)
	r.Write("dev/null", "", 0o644)
	return r
}

// Systemd makes a root where systemd runs, as far as a script can see.
func Systemd(t testing.TB, machine string) *Root {
	t.Helper()
	r := New(t, machine)
	r.Write("local/sbin/systemctl", systemctl, 0o755)
	if err := os.MkdirAll(filepath.Join(r.Dir, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

// Bare makes a root that has these programs of the machine's, by the name that they have in there, and besides them
// nothing but the fakes.
func Bare(t testing.TB, machine string, programs map[string]string) *Root {
	t.Helper()
	r := New(t, machine)
	r.bare = true
	if err := os.Mkdir(filepath.Join(r.Dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := func(name, program string) {
		path, err := filepath.EvalSymlinks(program)
		rest, merged := strings.CutPrefix(path, "/usr/")
		if err == nil && !merged {
			err = errors.New(path + " is not in /usr")
		}
		if err == nil {
			err = os.Symlink("/machine/"+rest, filepath.Join(r.Dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, program := range programs {
		link("local/sbin/"+name, program)
	}
	link("bin/sh", "/bin/sh") // of the fakes
	return r
}

// Write writes a file in the root.
func (r *Root) Write(name, text string, mode os.FileMode) {
	r.t.Helper()
	path := filepath.Join(r.Dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		r.t.Fatal(err)
	}
}

// Read returns the content of a file in the root; nothing if there is none.
func (r *Root) Read(name string) string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return string(data)
}

// enter sets the root up in a mount namespace of its own, for the arguments root, whether it is bare, and command. The machine's
// programs are also where no script looks for them, and in a bare one only there.
const enter = `set -eu
cd "$1"
bare=$2
shift 2
mkdir -p machine
mount --rbind /usr machine
if [ "$bare" = true ]; then
	mkdir -p usr/local/bin usr/local/sbin
	for dir in lib lib32 lib64; do
		ln -sfn "machine/$dir" "$dir"
	done
else
	for dir in bin sbin lib lib32 lib64; do
		[ ! -L "/$dir" ] || ln -sfn "$(readlink "/$dir")" "$dir"
		[ -L "/$dir" ] || [ ! -d "/$dir" ] || { mkdir -p "$dir"; mount --rbind "/$dir" "$dir"; }
	done
	mount --rbind /usr usr
fi
mount --bind local/bin usr/local/bin
mount --bind local/sbin usr/local/sbin
mount --rbind /proc proc
mount --bind /dev/null dev/null
exec chroot . "$@"
`

// Args are the arguments with which a command runs in the root.
func (r *Root) Args(command ...string) []string {
	args := []string{"unshare", "-m"}
	if os.Geteuid() != 0 {
		args = append(args, "-U", "-r")
	}
	return append(append(args, "/bin/sh", "-c", enter, "sh", r.Dir, strconv.FormatBool(r.bare)), command...)
}

// Run runs a script and returns its output and the calls that recorders saw.
func (r *Root) Run(ctx context.Context, script []byte) (out string, calls []string, err error) {
	r.t.Helper()
	r.Write("script", string(script), 0o700)
	r.Write("calls", "", 0o666)
	args := r.Args(r.Shell, "/script")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 10 * time.Second
	output, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		r.t.Fatalf("%v: install util-linux", err)
	}
	for line := range strings.Lines(r.Read("calls")) {
		calls = append(calls, strings.TrimSpace(line))
	}
	return string(output), calls, err
}
