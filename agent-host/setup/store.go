package setup

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// Record is one domain that setup was run on, and what it was run with.
type Record struct {
	// Daemon is the libvirt daemon, "qemu:///system" or "qemu:///session".
	Daemon string `json:"daemon"`
	// Domain is the domain's name, which stays when the domain is defined anew.
	Domain string `json:"domain"`
	// UUID is that of the definition which has what setup added.
	UUID string `json:"uuid"`
	// MACsOf is the UUID that the MAC addresses of the NICs come from: that of the first definition, so that the guest has
	// the NICs that it knows.
	MACsOf string `json:"macs_of"`
	// Disk is where the domain's first disk is, by which another VM of that name is known.
	Disk string `json:"disk,omitempty"`
	// HostOnly, Subnet, NAT, Seed and Rum are as in [Options].
	HostOnly string       `json:"host_only,omitempty"`
	Subnet   netip.Prefix `json:"subnet,omitzero"`
	NAT      string       `json:"nat,omitempty"`
	Seed     string       `json:"seed,omitempty"`
	Rum      bool         `json:"rum,omitempty"`
}

// Bounds of the file. The domain that setup was run on longest ago is forgotten first.
const (
	maxSetups = 1000
	maxFile   = 1 << 20 // bytes
)

// ErrTooLong says that one domain's record alone would not fit into the file.
var ErrTooLong = errors.New("too long to be remembered")

// Store is a file of records. Any number of processes may use one at the same time.
type Store struct {
	// Path is the file. Its directory is made with mode 0700 when there is something to write.
	Path string
}

// List returns what is remembered, in the order in which setup was run; nothing where there is no file.
func (s Store) List() ([]Record, error) {
	data, err := keyfile.ReadPrivate(s.Path, maxFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("remembered setups: %w", err)
	}
	var all []Record
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("remembered setups: %s is damaged: %w; move it away, and run rum-host-agent setup again for each domain that it was run on", s.Path, err)
	}
	return all[:min(len(all), maxSetups)], nil
}

// Find returns what is remembered of a domain.
func (s Store) Find(daemon, domain string) (Record, bool, error) {
	all, err := s.List()
	if i := index(all, daemon, domain); i >= 0 {
		return all[i], true, err
	}
	return Record{}, false, err
}

// Put remembers a setup, in the place of an earlier one of the same domain.
func (s Store) Put(setup Record) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := s.List()
	if err != nil {
		return err
	}
	if i := index(all, setup.Daemon, setup.Domain); i >= 0 {
		all = slices.Delete(all, i, i+1)
	}
	return s.write(append(all, setup))
}

// Forget reports whether there was something to forget of the domain.
func (s Store) Forget(daemon, domain string) (bool, error) {
	if _, err := os.Stat(s.Path); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	unlock, err := s.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	all, err := s.List()
	i := index(all, daemon, domain)
	if err != nil || i < 0 {
		return false, err
	}
	return true, s.write(slices.Delete(all, i, i+1))
}

func index(all []Record, daemon, domain string) int {
	return slices.IndexFunc(all, func(s Record) bool { return s.Daemon == daemon && s.Domain == domain })
}

// write writes as many of the last ones as there is room for.
func (s Store) write(all []Record) error {
	if more := len(all) - maxSetups; more > 0 {
		all = all[more:]
	}
	for {
		data, err := json.MarshalIndent(all, "", "  ")
		switch {
		case err != nil:
			return err
		case len(data) < maxFile:
			return keyfile.WritePrivate(s.Path, append(data, '\n'))
		case len(all) == 1:
			return fmt.Errorf("the setup of %.50q: %w", all[0].Domain, ErrTooLong)
		}
		all = all[len(all)/10+1:]
	}
}

func (s Store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o700); err != nil {
		return nil, fmt.Errorf("remembered setups: %w", err)
	}
	if unlock, err = keyfile.Lock(s.Path + ".lock"); err != nil {
		return nil, fmt.Errorf("remembered setups: %w", err)
	}
	return unlock, nil
}
