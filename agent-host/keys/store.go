package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

var (
	// ErrNotFound says that the store has no key for the guest: its link is without authentication.
	ErrNotFound = errors.New("no key for this guest")
	// ErrOtherDomain says that the key of that name was made for another domain. It is not ErrNotFound: to go on
	// without a key would let whoever takes a guest's name skip the proof.
	ErrOtherDomain = errors.New("the key belongs to another domain of that name")
)

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 64 << 10

// maxName is what leaves room for escapes and the suffix in a file name of 255 bytes (NAME_MAX).
const maxName = 240

// Store is a directory of keys. Any number of processes may use one at the same time.
type Store struct {
	// Dir is the directory, made with mode 0700 when the first key is.
	Dir string
}

// DefaultDir is rum-agent/keys under $XDG_STATE_HOME, without that under /var/lib for root and under ~/.local/state for
// everybody else.
func DefaultDir() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	switch home, err := os.UserHomeDir(); {
	case filepath.IsAbs(state): // the base directory specification has a relative one ignored
	case os.Geteuid() == 0:
		state = "/var/lib"
	case err != nil:
		return "", fmt.Errorf("state directory: %w: set XDG_STATE_HOME", err)
	default:
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "rum-agent", "keys"), nil
}

// record is one guest's file.
type record struct {
	Name string `json:"name"`
	UUID string `json:"uuid,omitempty"`
	Key  string `json:"key"`
}

// Lookup returns the key of the guest with that name. With a UUID on both sides they must agree: ErrOtherDomain if
// not. ErrNotFound when there is no key; any other error means that there is one which cannot be used.
func (s Store) Lookup(name, uuid string) (keyfile.Key, error) {
	path, err := s.path(name)
	if err != nil { // nor could one be made
		return keyfile.Key{}, fmt.Errorf("%w: %w", err, ErrNotFound)
	}
	_, key, err := s.read(path, name, uuid)
	return key, err
}

// Ensure returns the key of the guest, and makes one if it has none. A UUID, when it becomes known, is bound to the
// key from then on.
func (s Store) Ensure(name, uuid string) (keyfile.Key, error) {
	path, err := s.path(name)
	if err != nil {
		return keyfile.Key{}, err
	}
	unlock, err := s.lock()
	if err != nil {
		return keyfile.Key{}, err
	}
	defer unlock()

	rec, key, err := s.read(path, name, uuid)
	switch {
	case errors.Is(err, ErrNotFound):
		rec, key = record{Name: name}, keyfile.New()
	case err != nil:
		return keyfile.Key{}, err
	case rec.UUID != "" || uuid == "":
		return key, nil
	}
	rec.UUID = uuid
	if err := s.write(path, rec, key); err != nil {
		return keyfile.Key{}, err
	}
	return key, nil
}

// Remove forgets the guest's key; no key is no error.
func (s Store) Remove(name string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (s Store) path(name string) (string, error) {
	escaped := url.PathEscape(name)
	if name == "" || len(escaped) > maxName {
		return "", fmt.Errorf("key store: a guest's name has 1 to %d characters, not %d", maxName, len(name))
	}
	return filepath.Join(s.Dir, escaped+".json"), nil
}

func (s Store) read(path, name, uuid string) (record, keyfile.Key, error) {
	data, err := keyfile.ReadPrivate(path, maxRecord)
	if errors.Is(err, os.ErrNotExist) {
		return record{}, keyfile.Key{}, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	if err != nil {
		return record{}, keyfile.Key{}, fmt.Errorf("key store: %w", err)
	}
	if err := s.checkDir(); err != nil {
		return record{}, keyfile.Key{}, err
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return record{}, keyfile.Key{}, fmt.Errorf("key store: %s: %w", path, err)
	}
	// A file copied to another guest's name would have both trust one key.
	if rec.Name != name {
		return record{}, keyfile.Key{}, fmt.Errorf("key store: %s is the key of %q", path, rec.Name)
	}
	if rec.UUID != "" && uuid != "" && !strings.EqualFold(rec.UUID, uuid) {
		return record{}, keyfile.Key{}, fmt.Errorf("%s: key of %q is for domain %s, this one is %s: %w", path, name, rec.UUID,
			uuid, ErrOtherDomain)
	}
	key, err := keyfile.Parse([]byte(rec.Key))
	if err != nil {
		return record{}, keyfile.Key{}, fmt.Errorf("key store: %s: %w", path, err)
	}
	return rec, key, nil
}

func (s Store) write(path string, rec record, key keyfile.Key) error {
	rec.Key = strings.TrimSpace(string(key.Encode()))
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	if err := keyfile.WritePrivate(path, append(data, '\n')); err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	return nil
}

// checkDir refuses a directory where somebody else could replace or list keys.
func (s Store) checkDir() error {
	var st unix.Stat_t
	if err := unix.Stat(s.Dir, &st); err != nil {
		return fmt.Errorf("key store: %w", &os.PathError{Op: "stat", Path: s.Dir, Err: err})
	}
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return fmt.Errorf("key store: %s belongs to user %d, not to %d: %w", s.Dir, st.Uid, uid, keyfile.ErrExposed)
	}
	if st.Mode&0o077 != 0 {
		return fmt.Errorf("key store: %s has mode %#o, run chmod 700 on it: %w", s.Dir, st.Mode&0o777, keyfile.ErrExposed)
	}
	return nil
}

// lock makes the directory if need be and keeps other writers out until the returned function is called.
func (s Store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	if err := s.checkDir(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("key store: lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}
