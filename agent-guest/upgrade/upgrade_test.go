package upgrade

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// asAgent has the test binary be an agent: it says its name in a file, and stays or ends.
const asAgent = "RUM_TEST_AGENT"

// asVersion is what the test binary says where it is asked for its version, if not that of an agent v2.0.0.
const asVersion = "RUM_TEST_VERSION"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		switch said := cmp.Or(os.Getenv(asVersion), "rum-guest-agent v2.0.0"); said {
		case "nothing":
			time.Sleep(time.Minute)
		case "failure":
			os.Exit(1)
		default:
			fmt.Println(said)
		}
		os.Exit(0)
	}
	if said := os.Getenv(asAgent); said != "" {
		_ = os.WriteFile(said, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600)
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func own(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newUpgrader is one of an agent v1.0.0 in a directory of its own, in a system without packages.
func newUpgrader(t *testing.T) *Upgrader {
	t.Helper()
	onlyShell(t)
	u := &Upgrader{Exe: filepath.Join(t.TempDir(), "agent"), Version: "v1.0.0", Dir: filepath.Join(t.TempDir(), "state"),
		Manager: Manager{Once: true}, Log: slog.New(slog.DiscardHandler)}
	if err := os.WriteFile(u.Exe, own(t), 0o755); err != nil {
		t.Fatal(err)
	}
	return u
}

// onlyShell takes what knows packages off the path.
func onlyShell(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"sh", "cp", "chmod", "sync", "mv", "rm", "sleep", "cat", "readlink", "true"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

func order(b []byte, version string) wire.UpgradeRequest {
	return wire.UpgradeRequest{Sum: sha256.Sum256(b), Size: uint64(len(b)), Version: version}
}

// another is an agent that differs from this one behind its end.
func another(t *testing.T) []byte { return append(own(t), "another"...) }

func (u *Upgrader) mustHave(t *testing.T, want []byte, what string) {
	t.Helper()
	got, err := os.ReadFile(u.Exe)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes are there, want %d: %v", what, len(got), len(want), err)
	}
}

func TestABinaryThatIsNotWhatWasOrderedReplacesNothing(t *testing.T) {
	u := newUpgrader(t)
	good := another(t)
	foreign := bytes.Clone(good)
	binary.LittleEndian.PutUint16(foreign[18:], uint16(elf.EM_PPC64)) // e_machine
	object := bytes.Clone(good)
	binary.LittleEndian.PutUint16(object[16:], uint16(elf.ET_REL)) // e_type
	wrongClass := bytes.Clone(good)
	wrongClass[elf.EI_CLASS] = byte(elf.ELFCLASS32)
	script := []byte("#!/bin/sh\nexit 0\n")
	for name, c := range map[string]struct {
		order wire.UpgradeRequest
		sent  []byte
	}{
		"other bytes":           {order(good, "v2.0.0"), append(bytes.Clone(good[:len(good)-1]), 'X')},
		"cut short":             {order(good, "v2.0.0"), good[:len(good)-1]},
		"for another machine":   {order(foreign, "v2.0.0"), foreign},
		"no executable":         {order(object, "v2.0.0"), object},
		"of another class":      {order(wrongClass, "v2.0.0"), wrongClass},
		"a script":              {order(script, "v2.0.0"), script},
		"nothing at all, empty": {order(good, "v2.0.0"), nil},
	} {
		err := u.Take(t.Context(), c.order, bytes.NewReader(c.sent))
		if cut := uint64(len(c.sent)) < c.order.Size; err == nil || cut != strings.Contains(err.Error(), "bytes have come of") {
			t.Errorf("%s: %v", name, err)
		}
		u.mustHave(t, own(t), name)
		if left, _ := filepath.Glob(filepath.Join(u.Dir, "*")); len(left) > 0 {
			t.Errorf("%s: it leaves %q", name, left)
		}
	}
}

// TestABinaryThatIsNoAgentOfTheVersionThatWasOrderedReplacesNothing has a host whose order names a version that is new enough,
// for a binary that has another.
func TestABinaryThatIsNoAgentOfTheVersionThatWasOrderedReplacesNothing(t *testing.T) {
	before := versionTimeout
	t.Cleanup(func() { versionTimeout = before })
	for says, want := range map[string]string{
		"rum-guest-agent v0.9.0":         `"v0.9.0", and "v2.0.0" was ordered`,
		"rum-guest-agent v2.0.0\nand so": "was ordered",
		"bash 5.2":                       "no rum-guest-agent",
		strings.Repeat("x", 1<<16):       "no rum-guest-agent",
		"failure":                        "does not run here: exit status 1",
		"nothing":                        "does not run here",
	} {
		t.Setenv(asVersion, says)
		if says == "nothing" {
			versionTimeout = 200 * time.Millisecond
		}
		u, good := newUpgrader(t), another(t)
		err := u.Take(t.Context(), order(good, "v2.0.0"), bytes.NewReader(good))
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 {
			t.Errorf("%.40q: %.1000v", says, err)
		}
		u.mustHave(t, own(t), says)
		if left, _ := filepath.Glob(filepath.Join(u.Dir, "*")); len(left) > 0 {
			t.Errorf("%.40q: it leaves %q", says, left)
		}
		versionTimeout = before
	}
}

func TestAVersionThatIsTooLongForAnOrderIsTheOneThatWasOrdered(t *testing.T) {
	long := "v2.0.0-" + strings.Repeat("x", 100)
	t.Setenv(asVersion, "rum-guest-agent "+long)
	u, good := newUpgrader(t), another(t)
	u.Within = time.Second
	r, err := wire.ReadUpgradeRequest(order(good, long).Target().Args)
	if err == nil {
		err = u.Take(t.Context(), r, bytes.NewReader(good))
	}
	if err != nil {
		t.Error(err)
	}
	eventually(t, "the end of the script that waits", func() bool { return !waits(t, u.Dir) })
}

func TestTheBinaryThatRunsIsKnown(t *testing.T) {
	u := newUpgrader(t)
	same := order(own(t), "v0.9.0")
	for _, size := range []uint64{same.Size, 0} {
		same.Size = size
		if err := u.Check(t.Context(), same); !errors.Is(err, ErrRuns) || !errors.Is(err, os.ErrExist) {
			t.Errorf("of %d bytes: %v", size, err)
		}
	}
	if err := u.Check(t.Context(), order(another(t), u.Version)); err != nil {
		t.Errorf("another of the same version: %v", err)
	}
}

func TestAnOlderVersionAndABinaryWithoutEndAreRefusedBeforeTheyCome(t *testing.T) {
	u := newUpgrader(t)
	older := order(another(t), "v0.9.0")
	if err := u.Check(t.Context(), older); err == nil || !strings.Contains(err.Error(), "--allow-downgrade") {
		t.Errorf("an older one: %v", err)
	}
	older.Downgrade = true
	if err := u.Check(t.Context(), older); err != nil {
		t.Errorf("an older one that is wanted: %v", err)
	}
	for _, size := range []uint64{0, maxSize + 1, 1 << 63} {
		big := order(another(t), "v2.0.0")
		big.Size = size
		if u.Check(t.Context(), big) == nil {
			t.Errorf("%d bytes are taken", size)
		}
	}
}

func TestAFileOfAPackageIsNotReplaced(t *testing.T) {
	for command, c := range map[string]struct{ says, want string }{
		"dpkg":   {"rum-guest-agent: $2\n", "apt-get install ./rum-guest-agent_*.deb"},
		"rpm":    {"rum-guest-agent", "dnf install ./rum-guest-agent-*.rpm"},
		"apk":    {"$3 is owned by rum-guest-agent-0.1-r0\n", "apk upgrade rum-guest-agent"},
		"pacman": {"rum-guest-agent\n", "pacman -S rum-guest-agent"},
	} {
		u := newUpgrader(t)
		dir := os.Getenv("PATH")
		put := func(script string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, command), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		put("echo \"" + strings.TrimSuffix(c.says, "\n") + "\"\n")
		err := u.Check(t.Context(), order(another(t), "v2.0.0"))
		if err == nil || !strings.Contains(err.Error(), "belongs to the package rum-guest-agent") || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: %v", command, err)
		}
		put("echo no such file is known >&2; exit 1\n")
		if err := u.Check(t.Context(), order(another(t), "v2.0.0")); err != nil {
			t.Errorf("%s knows of none: %v", command, err)
		}
		put("echo the database is damaged >&2; exit 2\n")
		if err := u.Check(t.Context(), order(another(t), "v2.0.0")); err == nil || !strings.Contains(err.Error(), command+" does not say whether ") {
			t.Errorf("%s could not find out: %v", command, err)
		}
	}
}

// TestTheOldBinaryComesBackUnlessTheNewAgentIsLinked holds it for an agent that is linked in time and for one that is not.
func TestTheOldBinaryComesBackUnlessTheNewAgentIsLinked(t *testing.T) {
	for name, linked := range map[string]bool{"linked": true, "not linked": false} {
		t.Run(name, func(t *testing.T) {
			u := newUpgrader(t)
			u.Within = 2 * time.Second
			old, good := own(t), another(t)
			before := u.Begin()
			if err := u.Take(t.Context(), order(good, "v2.0.0"), bytes.NewReader(good)); err != nil {
				t.Fatal(err)
			}
			if err := u.Check(t.Context(), order(good, "v3.0.0")); err == nil {
				t.Error("another upgrade is taken meanwhile")
			}
			// The agent that runs still may be linked to as often as it likes.
			before()
			next := &Upgrader{Exe: u.Exe, Version: "v2.0.0", Dir: u.Dir, Log: u.Log}
			sign := next.Begin()
			if !linked {
				eventually(t, "the old binary", func() bool {
					_, err := os.Stat(filepath.Join(u.Dir, undone))
					return err == nil
				})
				u.mustHave(t, old, "afterwards")
				eventually(t, "the end of the script", func() bool { return !waits(t, u.Dir) })
				if left, _ := filepath.Glob(filepath.Join(u.Dir, "*")); len(left) != 1 { // what is undone
					t.Errorf("it leaves %q", left)
				}
				var said strings.Builder
				u.Log = slog.New(slog.NewTextHandler(&said, nil))
				u.Begin()
				if !strings.Contains(said.String(), "version=v2.0.0") {
					t.Errorf("the old agent says %q", said.String())
				}
				return
			}
			sign()
			sign()
			if left, _ := filepath.Glob(filepath.Join(u.Dir, "*")); len(left) > 0 {
				t.Errorf("it leaves %q", left)
			}
			// Had it not been removed, the script would have left a sign.
			eventually(t, "the end of the script that waits", func() bool { return !waits(t, u.Dir) })
			u.mustHave(t, good, "afterwards")
		})
	}
}

// waits tells whether a script waits that has the directory among its arguments.
func waits(t *testing.T, dir string) bool {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		words, _ := os.ReadFile(file)
		if bytes.Contains(words, []byte(dir)) {
			return true
		}
	}
	return false
}

// countWaits returns how many scripts have begun to wait. It takes the place of sleep.
func countWaits(t *testing.T) (count func() int) {
	t.Helper()
	real, err := exec.LookPath("sleep")
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	begun, place := filepath.Join(t.TempDir(), "begun"), filepath.Join(os.Getenv("PATH"), "sleep")
	if err == nil {
		err = os.Remove(place)
	}
	if err == nil {
		err = os.WriteFile(place, []byte("#!/bin/sh\necho >>"+begun+"\nexec "+real+" \"$@\"\n"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() int { b, _ := os.ReadFile(begun); return len(b) }
}

// TestTheOldBinaryComesBackAfterAReboot has a new agent start while an upgrade of an earlier boot is pending.
func TestTheOldBinaryComesBackAfterAReboot(t *testing.T) {
	for name, linked := range map[string]bool{"linked": true, "not linked": false} {
		t.Run(name, func(t *testing.T) {
			u := newUpgrader(t)
			u.Within = time.Second
			count := countWaits(t)
			old, good := own(t), another(t)
			if err := os.MkdirAll(u.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for file, content := range map[string][]byte{u.Exe: good, u.file(oldFile): old, u.file(pending): []byte("17\nv2.0.0\nan earlier boot\n")} {
				if err := os.WriteFile(file, content, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			u.Resume(t.Context())
			u.Resume(t.Context()) // it has crashed meanwhile
			want := old
			if sign := u.Begin(); linked {
				sign()
				want = good
			}
			eventually(t, "the end of the script that waits", func() bool { return !waits(t, u.Dir) })
			if n := count(); n != 1 {
				t.Errorf("%d scripts have waited", n)
			}
			u.mustHave(t, want, "afterwards")
			if _, err := os.Stat(u.file(undone)); linked == (err == nil) {
				t.Errorf("it is marked as undone: %v", err == nil)
			}
			u.Resume(t.Context())
			if waits(t, u.Dir) {
				t.Error("a script waits where nothing is pending")
			}
		})
	}
}

// TestAScriptThatWaitsInThisBootIsNotStartedTwice has the new agent start as it does after Take.
func TestAScriptThatWaitsInThisBootIsNotStartedTwice(t *testing.T) {
	u, good := newUpgrader(t), another(t)
	u.Within = time.Second
	count := countWaits(t)
	if err := u.Take(t.Context(), order(good, "v2.0.0"), bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	u.Resume(t.Context())
	eventually(t, "the end of the script", func() bool { return !waits(t, u.Dir) })
	if n := count(); n != 1 {
		t.Errorf("%d scripts have waited", n)
	}
}

// TestAnAgentThatNobodySupervisesIsStartedAnewWithTheOldBinary has the new one stay and say nothing.
func TestAnAgentThatNobodySupervisesIsStartedAnewWithTheOldBinary(t *testing.T) {
	u := newUpgrader(t)
	said := filepath.Join(t.TempDir(), "said")
	t.Setenv(asAgent, said)
	hung := exec.CommandContext(t.Context(), u.Exe)
	if err := hung.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hung.Process.Kill() }()
	process := func() string { b, _ := os.ReadFile(said); return strings.TrimSpace(string(b)) }
	eventually(t, "the agent", func() bool { return process() != "" })
	script := Manager{}.startAnew(u.Exe)
	script[4] = fmt.Sprint(hung.Process.Pid)
	script = script[:7] // without the flags of this test
	again := exec.CommandContext(t.Context(), script[0], script[1:]...)
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Process.Kill(); _ = again.Wait() }()
	if err := hung.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the one that hangs: %v", err)
	}
	eventually(t, "another agent", func() bool { return process() == fmt.Sprint(again.Process.Pid) })

	// A process that has got the number of one that is gone is let be.
	other := exec.CommandContext(t.Context(), "sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	script[4] = fmt.Sprint(other.Process.Pid)
	script[6] = "true"
	if out, err := exec.CommandContext(t.Context(), script[0], script[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	_ = other.Process.Signal(syscall.SIGTERM)
	if err := other.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("the other process: %v", err)
	}
}

func TestTheServiceOfAnAgentIsKnown(t *testing.T) {
	for groups, want := range map[string]string{
		"0::/system.slice/rum-guest-agent.service\n":                                              "rum-guest-agent.service",
		"12:pids:/system.slice/x.service\n1:name=systemd:/system.slice/rum-guest-agent.service\n": "x.service",
		"0::/user.slice/user-1000.slice/session-1.scope\n":                                        "",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n":                  "",
		"0::/\n": "",
		"":       "",
	} {
		if got := unitOf(groups); got != want {
			t.Errorf("%q: %q, want %q", groups, got, want)
		}
	}
	for cmdline, want := range map[string]string{
		"/sbin/supervise-daemon\x00rum-guest-agent\x00--start\x00": "rum-guest-agent",
		"supervise-daemon\x00": "",
		"-sh\x00":              "",
		"":                     "",
	} {
		if got := serviceOf([]byte(cmdline)); got != want {
			t.Errorf("%q: %q, want %q", cmdline, got, want)
		}
	}
}

// TestAReplacementThatFailsLeavesTheOldBinary has no room for the new one.
func TestAReplacementThatFailsLeavesTheOldBinary(t *testing.T) {
	u := newUpgrader(t)
	dir := os.Getenv("PATH")
	_ = os.Remove(filepath.Join(dir, "cp"))
	if err := os.WriteFile(filepath.Join(dir, "cp"), []byte("#!/bin/sh\necho no room >&2; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.Within = time.Second
	good := another(t)
	if err := u.Take(context.Background(), order(good, "v2.0.0"), io.MultiReader(bytes.NewReader(good), strings.NewReader("more"))); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("it says %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(u.Dir, "*")); len(left) > 0 {
		t.Errorf("it leaves %q on a disk that is full", left)
	}
	eventually(t, "the end of the script that waits", func() bool { return !waits(t, u.Dir) })
	u.mustHave(t, own(t), "afterwards")
	if _, err := os.Stat(filepath.Join(u.Dir, undone)); err == nil {
		t.Error("the old one was put back although nothing was replaced")
	}
}

// TestAReplacementThatNobodyWaitsForAnyMoreReplacesNothing is one that a slow disk has kept until it was given up: there is no
// way back from it.
func TestAReplacementThatNobodyWaitsForAnyMoreReplacesNothing(t *testing.T) {
	u := newUpgrader(t)
	file := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(file, another(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(u.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func() error { return u.Manager.outside(t.Context(), u.Dir, replace, file, u.Exe, u.Dir, "17") }
	for _, now := range []string{"", "18\nv3.0.0\n"} {
		if now != "" {
			if err := os.WriteFile(filepath.Join(u.Dir, pending), []byte(now), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := run(); err == nil {
			t.Errorf("it succeeds while %q is pending", now)
		}
		u.mustHave(t, own(t), "afterwards")
		if left, _ := filepath.Glob(u.Exe + ".*"); len(left) > 0 {
			t.Errorf("it leaves %q", left)
		}
	}
	if err := os.WriteFile(filepath.Join(u.Dir, pending), []byte("17\nv2.0.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(); err != nil {
		t.Errorf("its own: %v", err)
	}
	u.mustHave(t, another(t), "in time")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
