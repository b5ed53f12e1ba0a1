package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// maxRecord bounds what is read of a record, in bytes: JSON writes a control
// character of a comment in six.
const maxRecord = 6*maxSize + 64<<10

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
