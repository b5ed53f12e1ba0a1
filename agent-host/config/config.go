package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/BurntSushi/toml"

	"github.com/rum-vm/rum-agent/agent-host/config/position"
	"github.com/rum-vm/rum-agent/agent-host/remote/address"
)

// MaxSize bounds a file, in bytes. Hundreds of commented rules need a tenth.
const MaxSize = 256 << 10

// Config is what a rum.toml says. The defaults hold where it says nothing.
type Config struct {
	Network Network
	// Rules are those of the file, in its order; nil for none. What they leave
	// open is decided by [auto_ports], which is the last of them if it is written.
	Rules Rules
	// VMs are the [[vm]] tables, in the order of the file.
	VMs []VMTable
	// Hosts are the [[hosts]] tables: other hosts whose VMs are served here, each of another name.
	Hosts []address.Address
	// LibvirtURI is that of [advanced], if it is one of this machine's two daemons;
	// empty for none.
	LibvirtURI string
	// User is who rum logs in as: [ssh] user, else [user] name, else rum. It is empty for
	// one that is no name of a user.
	User string
	// Warnings are what rum will refuse of a file that is rum's too, or takes for
	// something else, in the order of the file.
	Warnings []*Error
}

// Default is the configuration of an empty file.
func Default() *Config {
	return &Config{Network: defaultNetwork(), User: rumUser}
}

// Closed is the configuration in the place of a file that has never been good: everything
// stays in the guest.
func Closed(name string) *Config {
	c := Default()
	c.Rules = Rules{{Name: filepath.Base(name) + ", which cannot be used", Proto: Any, Guest: allPorts, Ignore: true}}
	return c
}

// Parse reads a configuration. name is the file's, for errors and, without its
// folder, for the names of rules. The error is nil or made of [Error] values,
// one for each mistake, in the order of the file. A file with [image] or
// [resources], which rum requires, is read as [ParseProject] does.
func Parse(name string, data []byte) (*Config, error) { return parse(name, data, false) }

// ParseProject reads the rum.toml of a project, which rum reads too: [[ports]] mean
// what they mean to rum, and what rum will refuse is a warning.
func ParseProject(name string, data []byte) (*Config, error) { return parse(name, data, true) }

func parse(name string, data []byte, project bool) (*Config, error) {
	if len(data) > MaxSize {
		return nil, &Error{File: name, Line: 1, Column: 1, Text: fmt.Sprintf("larger than %d KiB, which is the most", MaxSize>>10)}
	}
	src := withoutBOM(string(data))
	root := make(map[string]any)
	if _, err := toml.Decode(src, &root); err != nil {
		return nil, syntaxError(name, src, err)
	}
	d := &document{file: name, src: src, at: position.Of(src)}
	d.rum = project || root["image"] != nil || root["resources"] != nil
	if project {
		d.domain = DomainName(name)
	}
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

// Tables of rules. The first two are read in the order of the file.
const (
	tablePorts   = "ports"   // rum's, with keys of ours
	tableForward = "forward" // ours alone
	tableAuto    = "auto_ports"
	tableVM      = "vm" // of settings
	tableHosts   = "hosts"
)

func (d *document) config(root table) *Config {
	root.foreign(rumTables)
	d.rumName()
	d.rumChecks(root)
	c := Default()
	if t, ok := root.table("network"); ok {
		c.Network = t.network()
	}
	if t, ok := root.part("advanced"); ok {
		c.LibvirtURI = t.libvirtURI()
	}
	c.User = root.rumUser()
	written := append(root.tables(tablePorts), root.tables(tableForward)...)
	if len(written) > maxRules {
		d.errorf(written[maxRules].path, "%d rules are more than %d, which is the most", len(written), maxRules)
		return c
	}
	d.inOrder(written)
	for _, t := range written {
		line, _ := d.position(t.path)
		r := t.rule()
		r.Name, r.Line = fmt.Sprintf("%s:%d", filepath.Base(d.file), line), line
		r.at = t.path
		if d.domain != "" && !r.forVM(d.domain) {
			d.warnf(t.path.Key(keyVM), "the rule never matches: the file is for the VM %s alone; leave vm out, or put the rule into the file of the other VM", shorten(d.domain))
		}
		if d.domain != "" && r.Reverse && r.HostSocket != "" {
			d.warnf(t.path.Key(keyHostSocket), "gives the VM this socket of the host's, and with it all that its server does for this user; remove the rule if it is not yours")
		}
		r.asRum = d.asRum(t.path)
		r.adds = r.namesPort && !r.Ignore && !r.Reverse && r.HostSocket == ""
		c.Rules = append(c.Rules, r)
	}
	if len(d.errs) == 0 {
		d.findConflicts(c.Rules)
	}
	if t, ok := root.table(tableAuto); ok {
		line, _ := d.position(t.path)
		c.Rules = append(c.Rules, t.auto(fmt.Sprintf("%s:%d", filepath.Base(d.file), line)))
	}
	c.VMs = root.vmTables()
	c.Hosts = root.hostTables()
	slices.SortStableFunc(d.warnings, compareErrors)
	c.Warnings = d.warnings
	return c
}

// inOrder sorts tables into the order of the file.
func (d *document) inOrder(tables []table) {
	slices.SortStableFunc(tables, func(a, b table) int { return cmp.Compare(d.at[a.path], d.at[b.path]) })
}

// Values of [Network.Mode].
const (
	ModeNAT  = "nat"
	ModeNone = "none"
)

// Network is the [network] table: what the set-up gives a domain.
type Network struct {
	// Mode is how the VM reaches the internet: [ModeNAT], through libvirt's
	// NAT network, or [ModeNone].
	Mode string
	// HostOnly is the name of the host-only network; empty for none.
	HostOnly string
	// Subnet is that network's, IPv4.
	Subnet netip.Prefix
}

func defaultNetwork() Network {
	return Network{Mode: ModeNAT, HostOnly: "rum-hostonly", Subnet: netip.MustParsePrefix("192.168.50.0/24")}
}

// Sizes of a subnet: at least the host, a DHCP server's range and a broadcast
// address, at most the largest private range of the usual kind.
const (
	minSubnetBits = 8
	maxSubnetBits = 29
)

// autoKeys are those of [auto_ports].
var autoKeys = []string{"enabled", "range", "bind"}

// networkKeys are those that rum does not have.
var networkKeys = []string{"mode", "host_only", "subnet"}

func (t table) network() Network {
	n := defaultNetwork()
	if mode, ok := t.word("mode", ModeNAT, ModeNone); ok {
		n.Mode = mode
	}
	if name, ok := get[string](t, "host_only", `the name of a network, or ""`); ok {
		n.HostOnly = name
	}
	text, ok := t.text("subnet")
	if !ok {
		return n
	}
	if n.HostOnly == "" {
		t.errorf("subnet", `says nothing when host_only is ""`)
	}
	subnet, err := netip.ParsePrefix(text)
	switch {
	case err != nil || !subnet.Addr().Is4():
		t.errorf("subnet", "%q is not an IPv4 subnet such as %q", shorten(text), n.Subnet)
	case subnet != subnet.Masked():
		t.errorf("subnet", "%q has bits behind its %d; did you mean %q?", text, subnet.Bits(), subnet.Masked())
	case subnet.Bits() < minSubnetBits || subnet.Bits() > maxSubnetBits:
		t.errorf("subnet", "/%d is not a size between /%d and /%d", subnet.Bits(), minSubnetBits, maxSubnetBits)
	case !subnet.Addr().IsPrivate():
		t.errorf("subnet", "%v is not private; take one of 192.168.0.0/16, 172.16.0.0/12 or 10.0.0.0/8", subnet)
	default:
		n.Subnet = subnet
	}
	return n
}
