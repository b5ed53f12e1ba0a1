package config

import (
	"net/netip"
	"path"
	"regexp"
	"strings"
	"time"
)

// maxRules bounds a file. It is a guard against a generator run wild.
const maxRules = 1000

// Proto is what a rule is about.
type Proto string

// Protocols of rules.
const (
	TCP Proto = "tcp"
	UDP Proto = "udp"
	Any Proto = "any"
)

// Has reports whether a listener's protocol is meant.
func (p Proto) Has(proto string) bool { return p == Any || string(p) == proto }

// Rule is one element of [[ports]] or [[forward]], with everything it leaves out filled in.
type Rule struct {
	// Name is the file and line of the rule, such as "rum.toml:12".
	Name string
	// VM is a glob for the names of VMs, as of [path.Match]; empty for all.
	VM    string
	Proto Proto

	// Guest are the ports in the guest, and Host those on the host, as many of
	// them: the first belongs to the first. The zero value stands for a socket.
	Guest, Host Ports
	GuestIP     GuestIP
	// HostIP is where to listen on the host; of a reverse rule, what to reach.
	HostIP []netip.Addr
	// Process is matched against the name of the program and its command line; nil for
	// any, also for one that is not known.
	Process *regexp.Regexp
	// Dir is the working directory of the program, or one above it; empty for any. A
	// leading ~ is the home of the user in the guest whose program it is.
	Dir string
	// GuestSocket and HostSocket are absolute paths of unix sockets in the
	// place of ports; empty for none. A leading ~ of HostSocket is expanded.
	GuestSocket, HostSocket string

	// Label is what the rule is for, in the user's words; empty for none.
	Label string
	// ProxyProtocol tells services their clients' addresses, by version 2 of the PROXY
	// protocol.
	ProxyProtocol bool
	// Hold is how long clients wait for a service that is not there for a moment; 0
	// for not at all.
	Hold time.Duration

	// Ignore keeps listeners in the guest; then nothing on the host side says
	// anything.
	Ignore bool
	// Static rules listen on the host before anything is seen to listen in
	// the guest, and after.
	Static bool
	// Reverse rules listen in the guest and reach the host.
	Reverse bool

	namesPort bool // guest is written
	adds      bool // it may be a place beside others for the same port: see joins
	asRum     bool // of [[ports]] in a file that rum reads too
	at        keyPath
	hostIPKey string // host_ip, or bind where that is written
	auto      *auto  // of [auto_ports]; nil for all others
}

// Rules are tried in their order; the first that matches decides. What none
// matches is decided by [auto_ports].
type Rules []Rule

// forVM reports whether the rule is about a VM.
func (r *Rule) forVM(name string) bool {
	ok, err := path.Match(r.VM, name)
	return r.VM == "" || ok && err == nil
}

// joins reports whether what the rule says is a place on the host beside that of an earlier
// one, and does not wait for that to go: to rum each of its [[ports]] is one. Of others those
// are that ask for the same listeners, and are in one table; the later one could mean nothing else.
func (r *Rule) joins(first *Rule) bool {
	if !r.adds || !first.adds {
		return false
	}
	return r.asRum && first.asRum || r.at.parent() == first.at.parent() && r.asksTheSame(first)
}

// asksTheSame reports whether two rules are for the same listeners.
func (r *Rule) asksTheSame(other *Rule) bool {
	return r.Guest == other.Guest && r.VM == other.VM && r.Proto == other.Proto && r.GuestIP == other.GuestIP &&
		r.Dir == other.Dir && r.program() == other.program()
}

// program is the pattern for the program; empty for any.
func (r *Rule) program() string {
	if r.Process == nil {
		return ""
	}
	return r.Process.String()
}

// ofProgram reports whether the rule asks for the program that listens.
func (r *Rule) ofProgram() bool { return r.Process != nil || r.Dir != "" }

// processName takes the process id off what portwatch calls a process.
func processName(process string) string {
	if i := strings.LastIndexByte(process, '['); i > 0 {
		return process[:i]
	}
	return process
}
