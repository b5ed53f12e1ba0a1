package keys

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Entry is one guest's key, without the key itself.
type Entry struct {
	Name string
	// UUID is the domain that the key is for; empty for any of that name.
	UUID string
	// Made is when the key was made or changed last.
	Made time.Time
	// Err is why the key cannot be used; nil if it can.
	Err error
}

// List returns the keys in the order of their names.
func (s Store) List() ([]Entry, error) {
	files, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, file := range files {
		escaped, ok := strings.CutSuffix(file.Name(), suffix)
		name, err := url.PathUnescape(escaped)
		if !ok || err != nil {
			continue // no key of ours, such as the lock
		}
		e := Entry{Name: name}
		if info, err := file.Info(); err == nil {
			e.Made = info.ModTime()
		}
		rec, _, err := s.read(filepath.Join(s.Dir, file.Name()), name, "")
		e.UUID, e.Err = rec.UUID, err
		all = append(all, e)
	}
	return all, nil
}
