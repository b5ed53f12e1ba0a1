package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// maxKeyFile bounds what is read of a key file, in bytes: the digits of a key
// and some white space.
const maxKeyFile = 256

// readKey reads the key that host and guest share, as 64 hexadecimal digits
// or as 32 raw bytes. The file must be closed to other users.
func readKey(path string) ([]byte, error) {
	data, err := keyfile.ReadPrivate(path, maxKeyFile)
	switch {
	case errors.Is(err, keyfile.ErrExposed):
		return nil, advise(fmt.Errorf("key file: %w", err), "make it private, and replace the key if someone may have read it")
	case errors.Is(err, fs.ErrNotExist):
		return nil, advise(fmt.Errorf("key file: %w", err), "name the file that cloud-init wrote, or leave out --key-file to serve without a key")
	case err != nil:
		return nil, advise(fmt.Errorf("key file: %w", err), "name a file that holds the key and that this user may read")
	}
	if len(data) == keyfile.Size {
		return data, nil
	}
	key, err := keyfile.Parse(data)
	if err != nil {
		return nil, advise(fmt.Errorf("key file %s: %w", path, err), "copy the key of this VM from the host again")
	}
	return key[:], nil
}
