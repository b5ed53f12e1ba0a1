package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/BurntSushi/toml"
)

// maxSize bounds a file, in bytes. Hundreds of commented rules need a tenth.
const maxSize = 256 << 10

// Config is what a rum.toml says. The defaults hold where it says nothing.
type Config struct {
	Network Network
	// Rules are those of the file, in its order; nil for none. What they leave
	// open is decided by [auto_ports], which is the last of them if it is written.
	Rules Rules
}

// Default is the configuration of an empty file.
func Default() *Config {
	return &Config{Network: defaultNetwork()}
}

// Load reads a file. The error wraps that of opening it, as [io/fs.ErrNotExist]
// for a file that is not there, or holds [Error] values.
func Load(path string) (*Config, error) {
	data, err := readText(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// readText reads what Parse takes, and one byte more of a file that is too large.
func readText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return data, nil
}

// Parse reads a configuration. name is the file's, for errors and, without its
// folder, for the names of rules. The error is nil or made of [Error] values,
// one for each mistake, in the order of the file.
func Parse(name string, data []byte) (*Config, error) {
	if len(data) > maxSize {
		return nil, &Error{File: name, Line: 1, Column: 1, Text: fmt.Sprintf("larger than %d KiB, which is the most", maxSize>>10)}
	}
	src := withoutBOM(string(data))
	root := make(map[string]any)
	if _, err := toml.Decode(src, &root); err != nil {
		return nil, syntaxError(name, err)
	}
	d := &document{file: name, src: src, at: keyPositions(src)}
	c := d.config(table{doc: d, values: root})
	if len(d.errs) > 0 {
		slices.SortStableFunc(d.errs, compareErrors)
		all := make([]error, len(d.errs))
		for i, e := range d.errs {
			all[i] = e
		}
		return nil, errors.Join(all...)
	}
	return c, nil
}

func (d *document) config(root table) *Config {
	root.allow("network", "auto_ports", "ports")
	c := Default()
	if t, ok := root.table("network"); ok {
		c.Network = t.network()
	}
	for _, t := range root.tables("ports") {
		line, _ := d.position(t.path)
		r := t.rule()
		r.Name = fmt.Sprintf("%s:%d", filepath.Base(d.file), line)
		r.at = t.path
		c.Rules = append(c.Rules, r)
	}
	if len(d.errs) == 0 {
		d.findConflicts(c.Rules)
	}
	if t, ok := root.table("auto_ports"); ok {
		line, _ := d.position(t.path)
		c.Rules = append(c.Rules, t.auto(fmt.Sprintf("%s:%d", filepath.Base(d.file), line)))
	}
	return c
}
