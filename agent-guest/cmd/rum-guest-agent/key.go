package main

import (
	"errors"
	"io/fs"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// readKey reads the key that host and guest share.
func readKey(path string) ([]byte, error) {
	key, err := keyfile.Read(path)
	switch {
	case errors.Is(err, keyfile.ErrExposed):
		return nil, advise(err, "make it private, and replace the key if someone may have read it")
	case errors.Is(err, keyfile.ErrNotKey):
		return nil, advise(err, "copy the key of this VM from the host again")
	case errors.Is(err, fs.ErrNotExist):
		return nil, advise(err, "name the file that cloud-init wrote, or leave out --key-file to serve without a key")
	case err != nil:
		return nil, advise(err, "name a file that holds the key and that this user may read")
	}
	return key[:], nil
}
