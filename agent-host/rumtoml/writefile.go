package rumtoml

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/agent-host/output"
)

// Write writes the file to a path; replace is for one that is there. A plan whose rules
// contradict each other is an error.
func (p *Plan) Write(path string, replace bool) error {
	text := p.text()
	if _, err := config.Parse(path, []byte(text)); err != nil {
		return output.Advise(fmt.Errorf("the rules contradict each other: %w", output.Mistakes(err)[0]), "give each host port once")
	}
	return writeFile(path, text, replace)
}

// writeFile leaves no half of a file. A new one must not be there, also not since
// it was looked for; an old one is replaced at once, also behind a symbolic link.
func writeFile(path, text string, replace bool) (err error) {
	if replace {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	name := path
	if replace {
		name += ".new"
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil && replace {
		err = os.Rename(name, path)
	}
	if err != nil {
		os.Remove(name)
	}
	return err
}
