package upgrade

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/builds"
	"github.com/rum-vm/rum-agent/tunnel/packagers"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// linkWithin is how long a new agent may take until it is linked.
	linkWithin = 30 * time.Second
	// maxSize is more than agents have, in bytes.
	maxSize = 128 << 20
	// scriptTimeout bounds the replacement of a binary.
	scriptTimeout = time.Minute
)

// Files of the state directory.
const (
	newFile = "new" // what has come
	oldFile = "old" // what ran before
	// pending has the upgrade's number, the version and the boot in which the script waits that puts the old binary back,
	// until the new agent has been linked to or the old one is back.
	pending = "pending"
	// undone has the version of one that was not linked to.
	undone = "undone"
)

// Upgrader replaces the binary of the agent that runs.
type Upgrader struct {
	// Exe is the binary's path, and Version that of the agent in it.
	Exe, Version string
	// Dir is the state directory, which is made when it is needed.
	Dir string
	// Manager starts the agent.
	Manager Manager
	// Within is how long a new agent may take until it is linked; 0 for 30 s.
	Within time.Duration
	Log    *slog.Logger

	busy sync.Mutex // while a binary is taken
	once sync.Once  // of Linked
}

// ErrRuns says that the binary that is ordered is the one that runs. It wraps [os.ErrExist].
var ErrRuns = fmt.Errorf("that binary runs already: %w", os.ErrExist)

var errBusy = errors.New("another upgrade is under way; try again in a minute")

// Check says why what is ordered cannot be, before its binary has come: [ErrRuns] where it is so already, whatever else is
// ordered.
func (u *Upgrader) Check(ctx context.Context, r wire.UpgradeRequest) error {
	own, err := ownSum()
	switch {
	case err != nil:
		return err
	case own == r.Sum:
		return ErrRuns
	case r.Size == 0 || r.Size > maxSize:
		return fmt.Errorf("a binary of %d bytes, want 1 to %d", r.Size, maxSize)
	case !r.Downgrade && builds.Older(r.Version, u.Version):
		return fmt.Errorf("%s is older than %s, which runs; it takes --allow-downgrade", r.Version, u.Version)
	}
	if _, err := os.Stat(filepath.Join(u.Dir, pending)); err == nil {
		return errBusy
	}
	return packagers.CheckUnowned(ctx, u.Exe)
}

// ownSum is the SHA-256 of the binary that runs.
func ownSum() (sum [sha256.Size]byte, err error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Take reads the binary that was ordered, and puts it in the place of the one that runs. When it has returned nil, the
// agent is to be started anew.
func (u *Upgrader) Take(ctx context.Context, r wire.UpgradeRequest, binary io.Reader) (err error) {
	if !u.busy.TryLock() {
		return errBusy
	}
	defer u.busy.Unlock()
	if err := os.MkdirAll(u.Dir, 0o700); err != nil {
		return err
	}
	defer func() {
		_ = os.Remove(u.file(newFile))
		if err != nil {
			_ = os.Remove(u.file(oldFile))
		}
	}()
	if err := u.receive(r, binary); err != nil {
		return err
	}
	if err := checkExecutable(u.file(newFile)); err != nil {
		return err
	}
	if err := checkVersion(ctx, u.file(newFile), r.Version); err != nil {
		return err
	}
	// The kernel knows the binary that runs, whatever is at its path by now.
	old, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer old.Close()
	if err := writeFile(u.file(oldFile), old); err != nil {
		return err
	}
	id := rand.Text()
	if err := u.writePending(id, r.Version); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(u.file(pending)) // the script that waits does nothing then
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, scriptTimeout)
	defer cancel()
	if err := u.restoreLater(ctx, id); err != nil {
		return err
	}
	if err := u.Manager.outside(ctx, u.Dir, replace, u.file(newFile), u.Exe, u.Dir, id); err != nil {
		return fmt.Errorf("replace %s: %w", u.Exe, err)
	}
	u.Log.Info("replaced the agent's binary; it starts anew", "version", r.Version, "was", u.Version)
	return nil
}

// restoreLater has the old binary put back after a while, if the upgrade of this number is still pending then.
func (u *Upgrader) restoreLater(ctx context.Context, id string) error {
	if err := u.Manager.later(ctx, cmp.Or(u.Within, linkWithin), restore, append([]string{u.Dir, u.Exe, id}, u.Manager.startAnew(u.Exe)...)...); err != nil {
		return fmt.Errorf("have the old binary put back if need be: %w", err)
	}
	return nil
}

// Resume is called before all else when an agent starts. Where an upgrade is pending and the machine was started anew since,
// the script that waited is gone, and another one is started.
func (u *Upgrader) Resume(ctx context.Context) {
	text, err := os.ReadFile(u.file(pending))
	if err != nil {
		return
	}
	id, rest, _ := strings.Cut(string(text), "\n")
	version, boot, _ := strings.Cut(rest, "\n")
	if boot == bootID() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, scriptTimeout)
	defer cancel()
	if err = u.restoreLater(ctx, id); err == nil {
		err = u.writePending(id, version)
	}
	if err != nil {
		u.Log.Warn("the old agent will not come back unless this one is linked to", "error", err)
	}
}

// writePending says which upgrade is pending, and that a script waits in this boot. The file has all of it or what it had.
func (u *Upgrader) writePending(id, version string) error {
	written := u.file(pending + ".new")
	if err := writeFile(written, strings.NewReader(id+"\n"+version+"\n"+bootID())); err != nil {
		return err
	}
	return os.Rename(written, u.file(pending))
}

// bootID is a line that is another one each time that the machine is started.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(id)
}

func (u *Upgrader) file(name string) string { return filepath.Join(u.Dir, name) }

// receive writes the binary that was ordered to a file of the state directory.
func (u *Upgrader) receive(r wire.UpgradeRequest, binary io.Reader) error {
	sum, n := sha256.New(), new(counter)
	if err := writeFile(u.file(newFile), io.TeeReader(io.LimitReader(binary, int64(r.Size)), io.MultiWriter(sum, n))); err != nil {
		return err
	}
	switch {
	case uint64(*n) != r.Size:
		return fmt.Errorf("%d bytes have come of %d", *n, r.Size)
	case [sha256.Size]byte(sum.Sum(nil)) != r.Sum:
		return errors.New("what has come does not have the SHA-256 that was ordered")
	}
	return nil
}

type counter uint64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// writeFile writes a file that only root may read, and all of it to the disk.
func writeFile(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// checkExecutable reports a file that is no program for this machine, as the one that runs is.
func checkExecutable(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("what has come is no executable: %w", err)
	}
	defer f.Close()
	own, err := elf.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer own.Close()
	switch {
	case f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN:
		return fmt.Errorf("what has come is no executable, but %v", f.Type)
	case f.Class != own.Class || f.Data != own.Data || f.Machine != own.Machine:
		return fmt.Errorf("what has come is for %v (%v), and this machine is %s", f.Machine, f.Class, runtime.GOARCH)
	}
	return nil
}

// Begin is called when the agent starts. It returns what is to be called when a host that has proved the key is linked.
func (u *Upgrader) Begin() (linked func()) {
	if version, err := os.ReadFile(u.file(undone)); err == nil {
		u.Log.Warn("the agent that was to take this one's place was not linked to in time", "version", strings.TrimSpace(string(version)))
		_ = os.Remove(u.file(undone))
	}
	// What comes later is of this agent's own successor.
	if _, err := os.Stat(u.file(pending)); err != nil {
		return func() {}
	}
	return func() {
		u.once.Do(func() {
			if err := os.Remove(u.file(pending)); err != nil {
				u.Log.Warn("the old agent may come back", "error", err)
				return
			}
			_ = os.Remove(u.file(oldFile))
			u.Log.Info("this agent has taken the place of another", "version", u.Version)
		})
	}
}
