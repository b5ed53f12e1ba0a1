package protocol

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/rum-vm/rum-agent/tunnel/endpoint"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

const (
	// MaxDomains is how many VMs a host may have.
	MaxDomains = 256
	// maxInventory is how long an inventory may be, in bytes.
	maxInventory = 512 << 10
	maxName      = 128
	maxText      = 512
)

// States of a domain.
const (
	Running = "running"
	Paused  = "paused"
	Off     = "off"
)

// kinds are those of ways to a guest agent, on the relay's host.
var kinds = []string{"", endpoint.SchemeVsock, endpoint.SchemeHybrid, endpoint.SchemeUnix, endpoint.SchemeSerial}

// Inventory is what the relay's user sees of the VMs there.
type Inventory struct {
	Domains []Domain `json:"domains"`
	// Error is why they cannot be asked for now; empty when Domains is current.
	Error string `json:"error,omitempty"`
}

// Domain is a VM there.
type Domain struct {
	Name  string    `json:"name"`
	UUID  uuid.UUID `json:"uuid"`
	State string    `json:"state"`
	// Boots counts starts and reboots that the relay has seen.
	Boots int `json:"boots,omitempty"`
	// Agent is the kind of way to its guest agent; empty for none, and Problem then says why.
	Agent   string `json:"agent,omitempty"`
	Problem string `json:"problem,omitempty"`
	// Bridge is its address there, to show; the zero Addr for none.
	Bridge netip.Addr `json:"bridge,omitzero"`
}

// AppendInventory appends an inventory as the relay sends it. Of what the host agent would refuse it sends nothing.
func AppendInventory(b []byte, v Inventory) ([]byte, error) {
	shown := make([]Domain, 0, min(len(v.Domains), MaxDomains))
	left := len(v.Domains)
	for _, d := range v.Domains {
		if d.Problem = wire.Clean(d.Problem, maxText); d.check() == nil && len(shown) < MaxDomains {
			shown = append(shown, d)
			left--
		}
	}
	v.Domains, v.Error = shown, wire.Clean(v.Error, maxText)
	if left > 0 && v.Error == "" {
		v.Error = fmt.Sprintf("%d VMs are not shown: %d are the most, and their names have to be printable", left, MaxDomains)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return b, err
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...), nil
}

// ReadInventory reads the next inventory, and how many bytes it had.
func ReadInventory(r io.Reader) (v Inventory, size int, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return v, 0, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxInventory {
		return v, 0, fmt.Errorf("its list of VMs has %d bytes, at most %d are allowed", n, maxInventory)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return v, 0, err
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, 0, fmt.Errorf("its list of VMs: %w", err)
	}
	if len(v.Domains) > MaxDomains {
		return v, 0, fmt.Errorf("it has %d VMs, at most %d are allowed", len(v.Domains), MaxDomains)
	}
	v.Error = wire.Clean(v.Error, maxText)
	names, ids := make(map[string]bool), make(map[uuid.UUID]bool)
	for i := range v.Domains {
		d := &v.Domains[i]
		d.Problem = wire.Clean(d.Problem, maxText)
		if err := d.check(); err != nil {
			return v, 0, fmt.Errorf("its VM %q: %w", wire.Clean(d.Name, maxName), err)
		}
		if names[d.Name] || ids[d.UUID] {
			return v, 0, fmt.Errorf("it has two VMs of the name %q or of its UUID", d.Name)
		}
		names[d.Name], ids[d.UUID] = true, true
	}
	return v, len(head) + len(text), nil
}

func (d *Domain) check() error {
	switch {
	case d.Name == "" || len(d.Name) > maxName || wire.Clean(d.Name, maxName) != d.Name:
		return fmt.Errorf("a name has 1 to %d bytes that can be printed", maxName)
	case strings.Contains(d.Name, "/"):
		return errors.New("a name has no /")
	case d.UUID == uuid.Nil:
		return errors.New("it has no UUID")
	case d.State != Running && d.State != Paused && d.State != Off:
		return errors.New("its state is none")
	case !slices.Contains(kinds, d.Agent):
		return errors.New("its agent is reached in a way that is not known here")
	case d.Bridge.IsValid() && (d.Bridge.IsUnspecified() || d.Bridge.IsMulticast() || d.Bridge.Zone() != ""):
		return errors.New("its bridge address is not one of a VM")
	}
	return nil
}
