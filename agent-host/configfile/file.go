package configfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/filewatch"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// DefaultPath is where the configuration of a user is looked for: in
// $XDG_CONFIG_HOME, else ~/.config, rum-agent/rum.toml. It is empty for a
// user without a home.
func DefaultPath() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "rum-agent", "rum.toml")
}

// File is a configuration file in use.
type File struct {
	path     string
	optional bool
	project  bool
	memory   memory
	seen     stamp // as last looked at
	looks    int   // how often it was as it is now

	mu        sync.Mutex
	stamp     stamp // of what was read last
	was       bool  // it was there and good once, in this run or an earlier one
	current   *config.Config
	err       error
	forgotten error // why current is not known to later runs
}

// stamp tells versions of a file apart. The zero value is a file that is not there.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
	changed  syscall.Timespec // also who may read it
}

// Open reads a file that is to be followed. An optional one need not be
// there: that is the [config.Default] configuration, until it is. One that was there
// and is gone is an error like one that cannot be read, or what its rules kept in
// the guest would be on the host. The error wraps that of opening the file, or holds
// [config.Error] values.
//
// Root reads no optional file of another user: HOME may be that user's.
//
// The directory remember, which is made, has the last good version for later
// runs; empty for none. An optional file that is gone or cannot be read is that
// version then, and [File.Err] tells why. For one with mistakes it is no excuse.
func Open(path string, optional bool, remember string) (*File, error) {
	f := &File{path: path, optional: optional, memory: memory{remember}}
	if optional {
		f.recall()
	}
	c, err := f.read(f.look())
	if _, mistaken := errors.AsType[*config.Error](err); c != nil && !mistaken {
		return f, nil
	}
	if err != nil && f.forgotten != nil {
		err = fmt.Errorf("%w; its last good version cannot be used: %v", err, f.forgotten)
	}
	return f, err
}

// OpenProject is as Open for the rum.toml of a project. It always gives a File:
// until there has been a good version of it, everything stays in the guest, because
// what its rules would keep there is not known.
func OpenProject(path, remember string) *File {
	f := &File{path: path, project: true, memory: memory{remember}}
	f.recall()
	if f.current == nil {
		f.current = config.Closed(path)
	}
	_, _ = f.read(f.look()) // [File.Err] tells
	return f
}

// parse reads what is in the file.
func (f *File) parse(text []byte) (*config.Config, error) {
	if f.project {
		return config.ParseProject(f.path, text)
	}
	return config.Parse(f.path, text)
}

// recall takes the version of an earlier run, in case there is none to be read.
func (f *File) recall() {
	text, err := f.memory.recall(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	f.was = true
	if err == nil {
		f.current, err = f.parse(text)
	}
	f.forgotten = err
}

// Path is where the file is.
func (f *File) Path() string { return f.path }

// Current is the last good configuration.
func (f *File) Current() *config.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

// Found reports whether what is in use was read from the file, now or by an earlier
// run, and is not the [config.Default] in the place of one that never was there.
func (f *File) Found() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.was
}

// Err tells why the file is not what is in use; nil when it is.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Forgotten tells why a later run would not know the version in use; nil when it would.
func (f *File) Forgotten() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.forgotten
}

// Follow calls changed after each new version of the file, and after each value of now even if it has not
// changed, until ctx ends; what now has is called after that. The error tells why the new version is not used
// and the last good one stays; nil for one that is.
func (f *File) Follow(ctx context.Context, now <-chan func(), changed func(*config.Config, error)) {
	w := filewatch.New()
	defer w.Close()
	for {
		w.Expect(f.Changing(), []string{f.path})
		done := func() {}
		select {
		case <-ctx.Done():
			return
		case done = <-now:
			f.Reread()
		case <-w.C:
			if !f.Poll() {
				continue
			}
		}
		changed(f.Current(), f.Err())
		done()
	}
}

// Poll looks at the file, and reads it if it is another than what was read last and
// has not changed since the last look, [filewatch.Every] before: an editor may take two
// steps to write it, and an empty file is a valid one. It reports whether it has read it.
func (f *File) Poll() bool {
	was := f.seen
	if f.seen = f.look(); f.seen != was {
		f.looks = 0
		return false
	}
	f.looks++
	enough := 1
	if f.seen.size == 0 && f.seen != (stamp{}) {
		enough = looksAtEmpty
	}
	if f.seen == f.stamp || f.looks < enough {
		return false
	}
	_, _ = f.read(f.seen)
	return true
}

// Changing reports whether the file was another at the last look than what was read.
func (f *File) Changing() bool { return f.seen != f.stamp }

// looksAtEmpty is how many looks in a row have to find a file empty. Programs that write a
// file in place empty it first, and on a busy machine may be kept from going on.
const looksAtEmpty = 5

// Reread reads the file whether or not it has changed.
func (f *File) Reread() {
	f.seen = f.look()
	_, _ = f.read(f.seen)
}

func (f *File) look() stamp {
	info, err := os.Stat(f.path)
	if err != nil {
		return stamp{}
	}
	s := stamp{modified: info.ModTime(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.changed = sys.Ino, sys.Ctim
	}
	return s
}

// read takes in the file as it is now.
func (f *File) read(s stamp) (*config.Config, error) {
	c, text, err := f.load()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamp, f.seen, f.err = s, s, err
	if err == nil {
		f.current, f.was = c, s != stamp{}
		if f.was {
			f.forgotten = f.memory.keep(f.path, text)
		}
	}
	return f.current, err
}

func (f *File) load() (*config.Config, []byte, error) {
	info, err := os.Stat(f.path)
	switch {
	case f.optional && !f.was && errors.Is(err, fs.ErrNotExist):
		return config.Default(), nil, nil
	case f.project && errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("read configuration: %w; put it back; or, if its VM is to go too, run: virsh undefine %s, and remove rum's work directory of %s",
			err, config.DomainName(f.path), config.ProjectID(f.path))
	case f.was && errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("read configuration: %w; put it back, or leave an empty file there for the default rules", err)
	case err == nil && !info.Mode().IsRegular():
		// Reading a pipe would wait for its writer.
		return nil, nil, fmt.Errorf("read configuration: %s is not a regular file", f.path)
	case err == nil && (f.project || f.optional) && os.Geteuid() == 0 && info.Sys().(*syscall.Stat_t).Uid != 0:
		return nil, nil, fmt.Errorf("read configuration: %s is another user's, and root's agent does not read it; run an agent as that user", f.path)
	}
	text, err := readText(f.path)
	if err != nil {
		return nil, nil, err
	}
	c, err := f.parse(text)
	return c, text, err
}

// maxRecord bounds what is read of a record, in bytes: JSON writes a control
// character of a comment in six.
const maxRecord = 6*config.MaxSize + 64<<10

// memory is a directory that keeps the last good text of a file for later runs.
// They would else take a file that was removed for one that never was.
type memory struct {
	dir string // empty to keep nothing
}

// record is what is kept of a file. It names the file for people who look there.
type record struct {
	File string `json:"file"`
	Text string `json:"text"`
}

// keep writes only what is new.
func (m memory) keep(path string, text []byte) error {
	if m.dir == "" {
		return nil
	}
	if old, err := m.recall(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	data, err := json.MarshalIndent(record{File: path, Text: string(text)}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	return keyfile.WritePrivate(m.file(path), append(data, '\n'))
}

// recall returns what was kept, or [fs.ErrNotExist] if nothing was.
func (m memory) recall(path string) ([]byte, error) {
	if m.dir == "" {
		return nil, fs.ErrNotExist
	}
	data, err := keyfile.ReadPrivate(m.file(path), maxRecord)
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return nil, fs.ErrNotExist
	case err != nil:
		return nil, err
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, fmt.Errorf("%s: %w", m.file(path), err)
	}
	return []byte(rec.Text), nil
}

func (m memory) file(path string) string {
	return filepath.Join(m.dir, fmt.Sprintf("%x.json", sha256.Sum256([]byte(path))))
}

// readText reads what [config.Parse] takes, and one byte more of a file that is too large.
func readText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return data, nil
}
