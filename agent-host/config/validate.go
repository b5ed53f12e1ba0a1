package config

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rum-vm/rum-agent/agent-host/config/position"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Keys of a rule.
const (
	keyGuest       = "guest"
	keyHost        = "host"
	keyProto       = "proto"
	keyGuestIP     = "guest_ip"
	keyHostIP      = "host_ip"
	keyVM          = "vm"
	keyProcess     = "process"
	keyCwd         = "cwd"
	keyIgnore      = "ignore"
	keyStatic      = "static"
	keyReverse     = "reverse"
	keyGuestSocket = "guest_socket"
	keyHostSocket  = "host_socket"
	keyBind        = "bind" // rum's name for host_ip
	keyLabel       = "label"
	keyHold        = "hold"
	keyProxy       = "proxy_protocol"
	keyOnConflict  = "on_conflict"
	keyOpen        = "open"
)

var ruleKeys = []string{
	keyGuest, keyHost, keyBind, keyProto, keyGuestIP, keyHostIP, keyVM, keyProcess, keyCwd, keyLabel, keyOpen, keyHold, keyProxy, keyOnConflict,
	keyIgnore, keyStatic, keyReverse, keyGuestSocket, keyHostSocket,
}

// maxStatic bounds the ports of a rule that opens them all at once.
const maxStatic = 1024

// maxSocketPath is what fits in sockaddr_un with its final zero, in bytes (unix(7)).
const maxSocketPath = 107

// rule reads one element of [[ports]] or [[forward]].
func (t table) rule() Rule {
	mistakes := len(t.doc.errs)
	t.allow(ruleKeys...)
	if len(t.values) == 0 {
		t.doc.errorf(t.path, "the rule is empty; say at least guest, or remove it")
	}
	r := Rule{namesPort: t.has(keyGuest)}
	r.Guest, _ = t.ports(keyGuest)
	r.Host, _ = t.ports(keyHost)
	r.VM = t.glob(keyVM)
	r.Process = t.process()
	r.Dir = t.cwd()
	r.GuestIP = t.guestIP()
	r.HostIP, r.hostIPKey = t.hostIP()
	r.Label = t.label()
	r.Hold = t.hold()
	_, r.ProxyProtocol = t.word(keyProxy, "v2")
	conflict, _ := t.word(keyOnConflict, "claim", conflictNext)
	r.NextFree = conflict == conflictNext
	if t.flag(keyOpen) {
		r.Open = t.says()
	}
	r.Ignore, r.Static, r.Reverse = t.flag(keyIgnore), t.flag(keyStatic), t.flag(keyReverse)
	r.GuestSocket, r.HostSocket = t.socket(keyGuestSocket), t.socket(keyHostSocket)
	r.Proto = t.proto()
	// What is missing or contradicts can be told only of values that are good.
	if len(t.doc.errs) == mistakes {
		t.checkPairs(&r)
	}
	if len(t.doc.errs) == mistakes {
		t.checkWhole(&r)
	}
	if len(t.doc.errs) == mistakes {
		r.fill()
	}
	return r
}

// says is what the table says, and in which file, but not where in that.
func (t table) says() string { return fmt.Sprintf("%s: %#v", t.doc.file, t.values) }

// conflictNext is the value of on_conflict that takes the next free port.
const conflictNext = "next"

// proto defaults to tcp for a rule about a port or a socket, as everywhere
// else. A rule about all ports is about both protocols: "ignore = true" alone
// must not leave half of them open.
func (t table) proto() Proto {
	if word, ok := t.word(keyProto, string(TCP), string(UDP), string(Any)); ok {
		return Proto(word)
	}
	if t.has(keyGuest) || t.has(keyGuestSocket) {
		return TCP
	}
	return Any
}

func (t table) glob(key string) string {
	glob, _ := t.text(key)
	if _, err := path.Match(glob, ""); err != nil {
		t.errorf(key, "%q is not a pattern: a [ without ], or a \\ at the end", shorten(glob))
	}
	return glob
}

func (t table) process() *regexp.Regexp {
	text, ok := t.text(keyProcess)
	if !ok {
		return nil
	}
	re, err := regexp.Compile(text)
	if err != nil {
		t.errorf(keyProcess, "%v", err)
	}
	return re
}

func (t table) cwd() string {
	dir, ok := t.text(keyCwd)
	if !ok {
		return ""
	}
	home, inHome := strings.CutPrefix(dir, "~")
	switch {
	case inHome && home != "" && home[0] != '/':
		t.errorf(keyCwd, `%q is the home of a user by name; "~" is that of whoever runs the program`, shorten(dir))
	case !inHome && !path.IsAbs(dir):
		t.errorf(keyCwd, `%q is neither an absolute path nor begins with "~/"`, shorten(dir))
	case strings.ContainsRune(dir, 0) || len(dir) > portlist.MaxDirectory:
		t.errorf(keyCwd, "%q cannot be a directory", shorten(dir))
	case !inHome:
		dir = path.Clean(dir)
	}
	return dir
}

func (t table) guestIP() GuestIP {
	text, ok := t.text(keyGuestIP)
	if !ok {
		return GuestIP{}
	}
	ip, err := parseGuestIP(text)
	if err != nil {
		t.errorf(keyGuestIP, "%v", err)
	}
	return ip
}

func (t table) hostIP() (ips []netip.Addr, key string) {
	key = keyHostIP
	if t.has(keyBind) {
		key = keyBind
	}
	text, ok := "", false
	if t.values[key] != "" || !t.asRum() {
		text, ok = t.text(key)
	}
	switch {
	case !ok && t.asRum():
		text = rumBind
	case !ok:
		text = WordLocalhost
	}
	ips, err := parseHostIP(text)
	if err != nil {
		t.errorf(key, "%v", err)
	}
	return ips, key
}

// asRum reports whether the rule means what it means to rum, which has other
// defaults.
func (t table) asRum() bool { return t.doc.asRum(t.path) }

func (d *document) asRum(rule position.Path) bool {
	return d.rum && rule.Parent() == position.Path("").Key(tablePorts)
}

// maxLabel bounds what is shown in a column, in bytes.
const maxLabel = 64

func (t table) label() string {
	text, _ := t.text(keyLabel)
	if len(text) > maxLabel {
		t.errorf(keyLabel, "%d bytes are more than %d, which is the most", len(text), maxLabel)
	}
	if text != "" && strings.TrimSpace(text) == "" {
		t.errorf(keyLabel, "is blank; leave the key out instead")
	}
	if i := strings.IndexFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }); i >= 0 {
		t.errorf(keyLabel, "%q cannot be shown in a column", shorten(text))
	}
	return text
}

// maxHold bounds how long a client waits for a service that restarts.
const maxHold = time.Minute

func (t table) hold() time.Duration {
	text, ok := t.text(keyHold)
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxHold {
		t.errorf(keyHold, `%q is not a time such as "5s", %v at most`, shorten(text), maxHold)
	}
	return d
}

func (t table) socket(key string) string {
	p, ok := t.text(key)
	if !ok {
		return ""
	}
	home := key == keyHostSocket && strings.HasPrefix(p, "~/")
	switch {
	case !home && !path.IsAbs(p) && key == keyHostSocket:
		t.errorf(key, `%q is not an absolute path and does not begin with "~/"`, shorten(p))
	case !home && !path.IsAbs(p):
		t.errorf(key, "%q is not an absolute path", shorten(p))
	case strings.HasSuffix(p, "/"), strings.ContainsRune(p, 0):
		t.errorf(key, "%q cannot be a socket", shorten(p))
	case len(p) > maxSocketPath:
		t.errorf(key, "%d bytes are more than the %d that the path of a socket can have", len(p), maxSocketPath)
	}
	return p
}

// contradictions are keys that make no sense together, and why.
var contradictions = []struct{ key, with, why string }{
	{keyHost, keyIgnore, "what is ignored has no place on the host"},
	{keyBind, keyIgnore, "what is ignored has no place on the host"},
	{keyHostIP, keyIgnore, "what is ignored has no place on the host"},
	{keyHostSocket, keyIgnore, "what is ignored has no place on the host"},
	{keyProxy, keyIgnore, "what is ignored has no clients here"},
	{keyProxy, keyReverse, "the clients of a reverse rule are the guest's own"},
	{keyProxy, keyHostSocket, "a client of a socket has no address"},
	{keyHold, keyIgnore, "what is ignored has no clients here"},
	{keyStatic, keyIgnore, "what is ignored is never opened"},
	{keyReverse, keyIgnore, "a reverse rule does not match listeners, it makes one; remove it instead"},
	{keyGuestSocket, keyIgnore, "sockets are forwarded only where a rule says so; remove it instead"},
	{keyStatic, keyReverse, "a reverse rule listens from the start as it is"},
	{keyProcess, keyReverse, "the listener of a reverse rule is this program's own"},
	{keyProcess, keyStatic, "a port that is open before any program listens cannot depend on its name"},
	{keyCwd, keyReverse, "the listener of a reverse rule is this program's own"},
	{keyCwd, keyStatic, "a port that is open before any program listens cannot depend on where it works"},
	{keyGuestSocket, keyGuest, "a rule has one place in the guest"},
	{keyHostSocket, keyHost, "a rule has one place on the host"},
	{keyGuestIP, keyGuestSocket, "a socket has no address"},
	{keyProcess, keyGuestSocket, "who listens on a socket is not known"},
	{keyCwd, keyGuestSocket, "who listens on a socket is not known"},
	{keyHostIP, keyHostSocket, "a socket has no address"},
	{keyBind, keyHostSocket, "a socket has no address"},
	{keyBind, keyHostIP, "both are the address on the host"},
	{keyHold, keyReverse, "a reverse rule waits for nothing in the guest"},
	{keyOnConflict, keyIgnore, "what is ignored has no place on the host"},
	{keyOnConflict, keyReverse, "a reverse rule has no place on the host"},
	{keyOnConflict, keyHostSocket, "no socket is the next one"},
	{keyOpen, keyIgnore, "what is ignored cannot be opened"},
	{keyOpen, keyReverse, "what a reverse rule reaches is here already"},
	{keyOpen, keyHostSocket, "no browser opens a socket"},
}

// checkPairs finds keys that contradict each other. A flag that is false is as
// good as none.
func (t table) checkPairs(r *Rule) {
	set := func(key string) bool {
		switch key {
		case keyIgnore:
			return r.Ignore
		case keyStatic:
			return r.Static
		case keyReverse:
			return r.Reverse
		case keyOnConflict:
			return r.NextFree
		case keyOpen:
			return r.Open != ""
		}
		return t.has(key)
	}
	for _, c := range contradictions {
		if set(c.key) && set(c.with) {
			t.errorf(c.key, "cannot go with %s: %s", c.with, c.why)
		}
	}
}

// checkWhole finds what is missing and what does not fit.
func (t table) checkWhole(r *Rule) {
	guest := t.has(keyGuest) || r.GuestSocket != ""
	host := t.has(keyHost) || r.HostSocket != ""
	sockets := r.GuestSocket != "" || r.HostSocket != ""
	switch {
	case t.has(keyHost) && !guest:
		t.errorf(keyHost, "which guest port is it for? say guest too")
	case r.HostSocket != "" && !guest:
		t.errorf(keyHostSocket, "which guest port is it for? say guest or guest_socket too")
	case r.GuestSocket != "" && !host:
		t.errorf(keyGuestSocket, "where on the host? say host or host_socket too")
	case r.Static && !guest:
		t.errorf(keyStatic, "which port is to be open from the start? say guest too")
	case r.Reverse && !guest:
		t.errorf(keyReverse, "where in the guest? say guest or guest_socket too")
	case t.has(keyGuest) && t.has(keyHost) && r.Guest.Len() != r.Host.Len():
		t.errorf(keyHost, "%s for %s in the guest: the ranges must be of one length",
			count(r.Host.Len()), count(r.Guest.Len()))
	case sockets && max(r.Guest.Len(), r.Host.Len()) > 1:
		t.errorf(t.firstOf(keyGuest, keyHost), "a socket belongs to one port, not to %d", max(r.Guest.Len(), r.Host.Len()))
	case sockets && r.Proto != TCP:
		t.errorf(keyProto, "a socket carries streams: leave proto out")
	case r.Hold > 0 && r.Proto == UDP:
		t.errorf(keyHold, "is for tcp only: datagrams do not wait")
	case r.Open != "" && r.Proto != TCP:
		t.errorf(keyOpen, "is for tcp only, and this rule is for %s: say proto = %q", r.Proto, TCP)
	case r.ProxyProtocol && r.Proto != TCP:
		t.errorf(keyProxy, "is for tcp only, and this rule is for %s: say proto = %q", r.Proto, TCP)
	case r.Reverse && r.Proto != TCP:
		t.errorf(keyProto, "reverse is for tcp only")
	case r.Reverse && r.GuestIP.Word == WordLoopback:
		t.errorf(keyGuestIP, "name one address to listen on in the guest, or %q", WordLocalhost)
	case r.Reverse && r.HostIP[0].IsUnspecified():
		t.errorf(t.firstOf(keyHostIP, keyBind), "name one address to reach on the host, or %q", WordLocalhost)
	case (r.Static || r.Reverse) && r.Guest.Len() > maxStatic:
		t.errorf(keyGuest, "%d ports at once are more than %d, which is the most", r.Guest.Len(), maxStatic)
	}
}

func count(ports int) string {
	if ports == 1 {
		return "one port"
	}
	return strconv.Itoa(ports) + " ports"
}

// firstOf is the first of the keys that is there.
func (t table) firstOf(keys ...string) string {
	for _, k := range keys {
		if t.has(k) {
			return k
		}
	}
	return keys[0]
}

// fill gives a good rule what it leaves out.
func (r *Rule) fill() {
	if !r.namesPort && r.GuestSocket == "" {
		r.Guest = allPorts
	}
	if r.Host == (Ports{}) && r.HostSocket == "" && !r.Ignore {
		r.Host = r.Guest
	}
	if r.Ignore || r.HostSocket != "" {
		r.HostIP = nil
	}
}
