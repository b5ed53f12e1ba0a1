package install

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/projects"
	"github.com/rum-vm/rum-agent/cloudinit"
)

// Install installs the guest agents of a seed in the VM, with the key that this host has
// for it or a new one, which is kept here once the guest has it. What the script prints goes
// to stdout, and what there is to say meanwhile to stderr.
func (t Target) Install(ctx context.Context, seed *cloudinit.Seed, stdout, stderr io.Writer) error {
	owner := seed.UUID
	if t.Project != nil && owner == "" {
		owner = keyOwner(t.Name, t.Project)
	}
	key, err := DraftKey(ctx, t.Name, owner, stderr)
	if err != nil {
		return err
	}
	defer key.Release()
	seed.Key = key.Key
	way, err := t.way(ctx, stderr)
	if err != nil {
		return err
	}
	script, err := seed.Installer()
	if err != nil {
		return err
	}
	said := &sighting{w: stdout, of: []byte(cloudinit.KeyInPlace)}
	err = way.do(ctx, "install the agent in", script, said, stderr)
	if err != nil && !said.seen {
		return err
	}
	// What fails once the key is there leaves the guest with it.
	if kept := key.Keep(); err == nil {
		err = kept
	}
	return err
}

// Uninstall removes the guest agent from the VM, with its key there and its service. Its
// writers are those of [Target.Install].
func (t Target) Uninstall(ctx context.Context, stdout, stderr io.Writer) error {
	way, err := t.way(ctx, stderr)
	if err != nil {
		return err
	}
	return way.do(ctx, "remove the agent from", cloudinit.Uninstaller(), stdout, stderr)
}

// keyOwner is whom the key of a project's VM is for: the project, unless it was made for one of the UUIDs of its domain.
func keyOwner(name string, p *projects.Project) string {
	identity := keys.ProjectIdentity(p.ID)
	store, err := keys.Default()
	if err != nil {
		return identity
	}
	if _, err := store.Lookup(name, identity); errors.Is(err, keys.ErrOtherDomain) && !store.BoundToProject(name) {
		return ""
	}
	return identity
}

// sighting passes on what is written, and notes whether a text was in it.
type sighting struct {
	w    io.Writer
	of   []byte
	last []byte // of what was written, less than the text
	seen bool
}

func (s *sighting) Write(p []byte) (int, error) {
	s.last = append(s.last, p...)
	s.seen = s.seen || bytes.Contains(s.last, s.of)
	s.last = s.last[max(0, len(s.last)-len(s.of)+1):]
	return s.w.Write(p)
}
