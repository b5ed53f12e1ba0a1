package keys

import (
	"context"
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
	// ErrDamaged says that a guest's file holds no key of it.
	ErrDamaged = errors.New("not the file of a key")
	// ErrExists says that the guest has a key already.
	ErrExists = errors.New("the guest has a key already")
)

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 64 << 10

// maxName is what leaves room for escapes and the suffix in a file name of 255 bytes (NAME_MAX).
const maxName = 240

// suffix ends the name of a record's file.
const suffix = ".json"

// Store is a directory of keys. Any number of processes may use one at the same time.
type Store struct {
	// Dir is the directory, made with mode 0700 when the first key is.
	Dir string
}

// Default is where this user's keys of guests are.
func Default() (Store, error) {
	dir, err := DefaultDir()
	return Store{Dir: dir}, err
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

// Reserve keeps others who reserve the guest waiting until release is called, so that two who give it a key at the same time
// give it the same. waiting is called if somebody else has it; the end of ctx ends the wait.
func (s Store) Reserve(ctx context.Context, name string, waiting func()) (release func(), err error) {
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	path = filepath.Join(s.Dir, "."+filepath.Base(path)+".lock")
	release, err = keyfile.TryLock(path)
	if errors.Is(err, keyfile.ErrLocked) {
		waiting()
		release, err = keyfile.LockContext(ctx, path)
	}
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	return release, nil
}

// Draft returns the guest's key, or a new one that is not kept yet, with the errors that [Store.Keep] would have. A
// command that fails between the two leaves no key that the guest does not have.
func (s Store) Draft(name, uuid string) (keyfile.Key, error) {
	key := keyfile.New()
	err := s.change(name, uuid, func(_ *record, old *keyfile.Key) error {
		if old != nil {
			key = *old
		}
		return errUnchanged
	})
	return key, err
}

// Keep keeps the guest's key, and binds the UUID to it if there is one. It does not replace another key: ErrExists.
func (s Store) Keep(name, uuid string, key keyfile.Key) error {
	return s.change(name, uuid, func(rec *record, old *keyfile.Key) error {
		switch {
		case old == nil:
		case *old != key:
			return fmt.Errorf("%q: %w", name, ErrExists)
		case rec.UUID != "" || uuid == "":
			return errUnchanged
		}
		rec.set(uuid, key)
		return nil
	})
}

// New makes a key for a guest that has none, else it is ErrExists.
func (s Store) New(name, uuid string) error { return s.Keep(name, uuid, keyfile.New()) }

// Rotate makes another key for a guest that has one, bound to the same domain.
func (s Store) Rotate(name string) error {
	return s.change(name, "", func(rec *record, old *keyfile.Key) error {
		if old == nil {
			return fmt.Errorf("%q: %w", name, ErrNotFound)
		}
		rec.set(rec.UUID, keyfile.New())
		return nil
	})
}

// Bind has the guest's key be for the domain with that UUID from now on, and for no other. Without a key it is ErrNotFound.
func (s Store) Bind(name, uuid string) error {
	return s.change(name, "", func(rec *record, old *keyfile.Key) error {
		if old == nil {
			return fmt.Errorf("%q: %w", name, ErrNotFound)
		}
		rec.set(uuid, *old)
		return nil
	})
}

// errUnchanged ends a change that has nothing to write.
var errUnchanged = errors.New("unchanged")

// change has one guest's record changed, while nobody else does. The function gets no key where there is none yet.
func (s Store) change(name, uuid string, f func(rec *record, old *keyfile.Key) error) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()

	rec, key, err := s.read(path, name, uuid)
	old := &key
	if errors.Is(err, ErrNotFound) {
		rec, old, err = record{Name: name}, nil, nil
	}
	if err == nil {
		err = f(&rec, old)
	}
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.write(path, rec)
}

func (r *record) set(uuid string, key keyfile.Key) {
	r.UUID, r.Key = uuid, strings.TrimSpace(string(key.Encode()))
}

// Remove forgets the guest's key, also one that cannot be read. Without one it is ErrNotFound.
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
	err = os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%q: %w", name, ErrNotFound)
	}
	return err
}

func (s Store) path(name string) (string, error) {
	escaped := url.PathEscape(name)
	if name == "" || len(escaped) > maxName {
		return "", fmt.Errorf("key store: a guest's name has 1 to %d characters, not %d", maxName, len(name))
	}
	return filepath.Join(s.Dir, escaped+suffix), nil
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
		return record{}, keyfile.Key{}, fmt.Errorf("key store: %s: %w: %w", path, ErrDamaged, err)
	}
	// A file copied to another guest's name would have both trust one key.
	if rec.Name != name {
		return record{}, keyfile.Key{}, fmt.Errorf("key store: %s is the key of %q: %w", path, rec.Name, ErrDamaged)
	}
	if rec.UUID != "" && uuid != "" && !strings.EqualFold(rec.UUID, uuid) {
		return record{}, keyfile.Key{}, &OtherDomainError{Path: path, Name: name, Bound: rec.UUID, UUID: uuid}
	}
	key, err := keyfile.Parse([]byte(rec.Key))
	if err != nil {
		return record{}, keyfile.Key{}, fmt.Errorf("key store: %s: %w: %w", path, ErrDamaged, err)
	}
	return rec, key, nil
}

func (s Store) write(path string, rec record) error {
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

func (s Store) makeDir() error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	return s.checkDir()
}

// lock makes the directory if need be and keeps other writers out until the returned function is called.
func (s Store) lock() (unlock func(), err error) {
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	if unlock, err = keyfile.Lock(filepath.Join(s.Dir, ".lock")); err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	return unlock, nil
}
