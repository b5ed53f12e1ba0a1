package config_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// drawn is a rule as a person would state it. Empty and zero leave a key out.
type drawn struct {
	guest, last      int // a range when last is more than guest
	shift            int // host is guest plus that
	proto, guestIP   string
	hostIP, vm, proc string
	ignore, static   bool
	reverse          bool
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// draw makes a rule whose host ports are its own: shift is different for each.
func draw(r *rand.Rand, number int) drawn {
	d := drawn{
		guestIP: pick(r, "", "", "", "wildcard", "loopback", "localhost", "127.0.0.1", "10.0.0.7", "::1"),
		proto:   pick(r, "", "", "tcp", "udp", "any"),
		vm:      pick(r, "", "", "dev", "d*", "t?st"),
		proc:    pick(r, "", "", "", "nginx", "^n", "s$"),
		hostIP:  pick(r, "", "", "127.0.0.2", "0.0.0.0", "::1"),
		ignore:  r.IntN(4) == 0,
	}
	if r.IntN(4) > 0 {
		d.guest = pick(r, 20, 22, 50, 53, 1070, 33000)
		d.last = d.guest + pick(r, 0, 0, 3, 20)
		d.shift = number * 100
		switch {
		case d.ignore || d.proc != "":
		case r.IntN(5) == 0:
			d.static = true
		case r.IntN(8) == 0 && d.guestIP != "wildcard" && d.guestIP != "loopback" && d.hostIP != "0.0.0.0":
			d.reverse, d.proto = true, ""
			// Where two would listen in the guest at once is another matter.
			d.guest, d.last = 10000+number, 10000+number
		}
	}
	if d.ignore {
		d.hostIP, d.shift = "", 0
	}
	return d
}

func (d drawn) toml() string {
	var b strings.Builder
	b.WriteString("[[ports]]\nignore = ")
	fmt.Fprintln(&b, d.ignore)
	if d.guest > 0 {
		fmt.Fprintf(&b, "guest = \"%d-%d\"\n", d.guest, d.last)
	}
	if d.guest > 0 && d.shift > 0 {
		fmt.Fprintf(&b, "host = \"%d-%d\"\n", d.guest+d.shift, d.last+d.shift)
	}
	for key, v := range map[string]string{"proto": d.proto, "guest_ip": d.guestIP, "host_ip": d.hostIP, "vm": d.vm, "process": d.proc} {
		if v != "" {
			fmt.Fprintf(&b, "%s = %q\n", key, v)
		}
	}
	fmt.Fprintf(&b, "static = %v\nreverse = %v\n", d.static, d.reverse)
	return b.String()
}

// naive says what a listener becomes by going through the documentation
// sentence by sentence, with nothing of the package in it.
func naive(all []drawn, vm string, l portlist.Listener) string {
	port, ip := int(l.Addr.Port()), l.Addr.Addr().String()
	name := strings.Split(l.Process, "[")[0]
	udp := l.Proto == "udp"
	noise := !udp && port == 22 || port == 53 && (ip == "127.0.0.53" || name == "dnsmasq")
	low, ephemeral := port < 1024, l.Ephemeral
	for i, d := range all {
		proto := d.proto
		if proto == "" && d.guest > 0 {
			proto = "tcp"
		}
		if d.reverse || proto != "" && proto != "any" && proto != l.Proto {
			continue
		}
		if d.guest > 0 && (port < d.guest || port > d.last) {
			continue
		}
		wild, loop := ip == "0.0.0.0" || ip == "::", strings.HasPrefix(ip, "127.") || ip == "::1"
		if d.guestIP == "wildcard" && !wild || d.guestIP == "loopback" && !loop ||
			d.guestIP == "localhost" && !wild && ip != "127.0.0.1" && ip != "::1" {
			continue
		}
		if d.guestIP != "" && d.guestIP[len(d.guestIP)-1] < 'a' && d.guestIP != ip {
			continue
		}
		if ok, _ := path.Match(d.vm, vm); d.vm != "" && !ok {
			continue
		}
		if d.proc != "" && (name == "" || !regexp.MustCompile(d.proc).MatchString(name)) {
			continue
		}
		if low && !d.ignore && d.guest == 0 {
			continue
		}
		if (noise || ephemeral) && !d.ignore && d.guest == 0 && d.proc == "" {
			continue
		}
		if d.ignore {
			return fmt.Sprintf("%d: ignored", i)
		}
		hosts := []string{"127.0.0.1", "::1"}
		if d.hostIP != "" {
			hosts = []string{d.hostIP}
		}
		return fmt.Sprintf("%d: %v", i, at(hosts, port+d.shift))
	}
	if noise || low || ephemeral {
		return "implied: ignored"
	}
	return fmt.Sprintf("implied: %v", at([]string{"127.0.0.1", "::1"}, port))
}

func at(hosts []string, port int) (out []netip.AddrPort) {
	for _, h := range hosts {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(h), uint16(port)))
	}
	return out
}

func TestFirstMatchAgreesWithANaiveEvaluator(t *testing.T) {
	accepted, decided := 0, make(map[string]int)
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 6))
		var all []drawn
		var text strings.Builder
		lines := make(map[string]int) // rule by name
		for i := range r.IntN(7) {
			d := draw(r, i+1)
			all = append(all, d)
			lines[fmt.Sprintf("rum.toml:%d", 1+strings.Count(text.String(), "\n"))] = i
			text.WriteString(d.toml())
		}
		c, err := config.Parse("rum.toml", []byte(text.String()))
		if err != nil {
			// Rules drawn at random do contradict each other now and then.
			if !strings.Contains(err.Error(), "already") {
				t.Fatalf("seed %d: %v\n%s", seed, err, text.String())
			}
			continue
		}
		accepted++
		for range 40 {
			vm := pick(r, "dev", "test", "prod")
			l := portlist.Listener{
				Proto: pick(r, "tcp", "udp"),
				Addr: netip.AddrPortFrom(netip.MustParseAddr(pick(r, "0.0.0.0", "::", "127.0.0.1", "127.0.0.53", "::1", "10.0.0.7")),
					pick(r, uint16(20), 22, 23, 33, 40, 50, 53, 55, 61, 62, 80, 1080, 2300, 5432, 10001, 10002, 33000, 33003)),
				Process:   pick(r, "", "nginx[7]", "dnsmasq[8]", "redis[9]"),
				Ephemeral: r.IntN(4) == 0,
			}
			d := c.Rules.Decide(vm, l)
			got := "implied: "
			if d.Rule != config.DefaultRule {
				got = fmt.Sprintf("%d: ", lines[d.Rule])
			}
			if d.Ignored {
				got += "ignored"
			} else {
				got += fmt.Sprint(d.Host)
			}
			if want := naive(all, vm, l); got != want {
				t.Fatalf("seed %d: %+v of %s: got %s, want %s\n%s", seed, l, vm, got, want, text.String())
			}
			decided[got[:strings.Index(got, ":")]]++
		}
	}
	if accepted < 400 || decided["implied"] < 1000 || decided["0"] < 1000 || decided["3"] < 200 {
		t.Errorf("the rules drawn say too little: %d files, decided by %v", accepted, decided)
	}
}
