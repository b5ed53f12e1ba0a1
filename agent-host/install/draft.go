package install

import (
	"context"
	"fmt"
	"io"

	"github.com/rum-vm/rum-agent/agent-host/keys"
	"github.com/rum-vm/rum-agent/agent-host/output"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// Draft is the key that a command is about to give to a guest.
type Draft struct {
	keyfile.Key
	// Store is where it is kept.
	Store      keys.Store
	name, uuid string
	release    func()
}

// Release lets another command give the guest its key.
func (d Draft) Release() { d.release() }

// DraftKey returns the guest's key, or a new one that is not kept yet. Until it is released no other command gives that
// guest a key.
func DraftKey(ctx context.Context, name, uuid string, stderr io.Writer) (d Draft, err error) {
	d = Draft{name: name, uuid: uuid}
	if d.Store, err = keys.Default(); err != nil {
		return d, adviseOnKey(name, err)
	}
	d.release, err = d.Store.Reserve(ctx, name, func() {
		fmt.Fprintf(stderr, "waiting for another command that gives %s its key\n", output.Clean(name))
	})
	if err != nil {
		return d, adviseOnKey(name, err)
	}
	if d.Key, err = d.Store.Draft(name, uuid); err != nil {
		d.release()
	}
	return d, adviseOnKey(name, err)
}

// Keep is what such a command does last, so that one which fails leaves no key that the guest does not have.
func (d Draft) Keep() error { return adviseOnKey(d.name, d.Store.Keep(d.name, d.uuid, d.Key)) }

// adviseOnKey says what to do about an error of the store.
func adviseOnKey(name string, err error) error {
	return output.Hinted(err, keys.Hint(output.Clean(name), err))
}
