package config_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// rules writes "guest=80,host=8080 | ignore=true" as a file of one rule a line.
func rules(t *testing.T, text string) config.Rules {
	t.Helper()
	if text == "" {
		return nil
	}
	return parse(t, "forward = [\n{"+strings.ReplaceAll(text, " | ", "},\n{")+"},\n]").Rules
}

const (
	named   = "; a rule that names the port forwards it"
	ignored = "ignored: "
)

func TestEachRuleFeatureAlone(t *testing.T) {
	for _, row := range []struct{ rules, listener, want string }{
		// The implied rule.
		{"", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"", "udp [::1]:1080", "127.0.0.1:1080 [::1]:1080"},
		{"", "tcp 192.0.2.9:65535", "127.0.0.1:65535 [::1]:65535"},
		// Ports.
		{"guest=1080,host=8080", "tcp 0.0.0.0:1080", "127.0.0.1:8080 [::1]:8080"},
		{"guest=1080,host=8080", "tcp 0.0.0.0:1081", "127.0.0.1:1081 [::1]:1081"},
		{"guest='1080-1080',host='8080'", "tcp 0.0.0.0:1080", "127.0.0.1:8080 [::1]:8080"},
		{"guest='4000-4999',host='14000-14999'", "tcp 0.0.0.0:4000", "127.0.0.1:14000 [::1]:14000"},
		{"guest='4000-4999',host='14000-14999'", "tcp 0.0.0.0:4999", "127.0.0.1:14999 [::1]:14999"},
		{"guest='4000-4999',host='14000-14999'", "tcp 0.0.0.0:3999", "127.0.0.1:3999 [::1]:3999"},
		{"guest='4000-4999',host='14000-14999'", "tcp 0.0.0.0:5000", "127.0.0.1:5000 [::1]:5000"},
		// Protocols: a rule for one says nothing about the other.
		{"guest=1080,host=8080", "udp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"guest=1080,host=8080,proto='udp'", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"guest=1080,host=8080,proto='udp'", "udp 0.0.0.0:1080", "127.0.0.1:8080 [::1]:8080"},
		{"guest=1080,host=8080,proto='any'", "tcp 0.0.0.0:1080", "127.0.0.1:8080 [::1]:8080"},
		{"guest=1080,host=8080,proto='any'", "udp 0.0.0.0:1080", "127.0.0.1:8080 [::1]:8080"},
		{"guest=1080,ignore=true", "udp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"ignore=true", "udp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		{"ignore=true", "tcp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		{"ignore=true,proto='tcp'", "udp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		// Guest addresses.
		{"guest_ip='wildcard',ignore=true", "tcp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='0.0.0.0',ignore=true", "tcp [::]:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='::',ignore=true", "tcp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='wildcard',ignore=true", "tcp 127.0.0.1:1080", "127.0.0.1:1080 [::1]:1080"},
		{"guest_ip='loopback',ignore=true", "tcp 127.0.0.1:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='loopback',ignore=true", "tcp 127.9.9.9:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='loopback',ignore=true", "tcp [::1]:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='loopback',ignore=true", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"guest_ip='localhost',ignore=true", "tcp 127.0.0.1:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='localhost',ignore=true", "tcp [::]:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='localhost',ignore=true", "tcp 127.0.0.2:1080", "127.0.0.1:1080 [::1]:1080"},
		{"guest_ip='127.0.0.1',ignore=true", "tcp 127.0.0.1:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='127.0.0.1',ignore=true", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"guest_ip='127.0.0.1',ignore=true", "tcp [::1]:1080", "127.0.0.1:1080 [::1]:1080"},
		{"guest_ip='FD00::0:1',ignore=true", "tcp [fd00::1]:1080", ignored + "ignored by rum.toml:2"},
		{"guest_ip='::ffff:10.0.0.1',ignore=true", "tcp 10.0.0.1:1080", ignored + "ignored by rum.toml:2"},
		// Host addresses.
		{"host_ip='localhost'", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"host_ip='127.0.0.2'", "tcp 0.0.0.0:1080", "127.0.0.2:1080"},
		{"host_ip='0.0.0.0'", "tcp 127.0.0.1:1080", "0.0.0.0:1080"},
		{"host_ip='::'", "tcp 0.0.0.0:1080", "[::]:1080"},
		{"host_ip='*'", "tcp 0.0.0.0:1080", "0.0.0.0:1080 [::]:1080"},
		{"guest=1080,host=1081,host_ip='fe80::1%eth0'", "tcp 0.0.0.0:1080", "[fe80::1%eth0]:1081"},
		// VMs.
		{"vm='dev',ignore=true", "tcp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		{"vm='d*',ignore=true", "tcp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		{"vm='de?',ignore=true", "tcp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		{"vm='[a-d]ev',ignore=true", "tcp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		{"vm='de',ignore=true", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"vm='Dev',ignore=true", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		// Processes: the name without the id.
		{"process='nginx',ignore=true", "tcp 0.0.0.0:1080 nginx[812]", ignored + "ignored by rum.toml:2"},
		{"process='^ngi',ignore=true", "tcp 0.0.0.0:1080 nginx[812]", ignored + "ignored by rum.toml:2"},
		{"process='^nginx$',ignore=true", "tcp 0.0.0.0:1080 nginx[812]", ignored + "ignored by rum.toml:2"},
		{"process='812',ignore=true", "tcp 0.0.0.0:1080 nginx[812]", "127.0.0.1:1080 [::1]:1080"},
		{"process='.*',ignore=true", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"process='^a[[]b$',ignore=true", "tcp 0.0.0.0:1080 a[b[7]", ignored + "ignored by rum.toml:2"},
		// Sockets.
		{"guest=1080,host_socket='/run/x.sock'", "tcp 0.0.0.0:1080", "/run/x.sock"},
		{"guest_socket='/x',host=1080", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		// A reverse rule is not about listeners.
		{"guest=1080,host=9000,reverse=true", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		// A static rule is a rule like any other.
		{"guest=1080,host=9000,static=true", "tcp 0.0.0.0:1080", "127.0.0.1:9000 [::1]:9000"},
	} {
		if got := place(rules(t, row.rules).Decide("dev", listener(t, row.listener))); got != row.want {
			t.Errorf("%q, %s: got %s, want %s", row.rules, row.listener, got, row.want)
		}
	}
}

func TestPairsOfRules(t *testing.T) {
	for _, row := range []struct{ rules, listener, want string }{
		// The first that matches decides.
		{"guest=1080,host=8080 | guest=1080,ignore=true", "tcp 0.0.0.0:1080", "127.0.0.1:8080 [::1]:8080"},
		{"guest=1080,ignore=true | guest=1080,host=8080", "tcp 0.0.0.0:1080", ignored + "ignored by rum.toml:2"},
		// Only what is named.
		{"guest=1080 | ignore=true", "tcp 0.0.0.0:1080", "127.0.0.1:1080 [::1]:1080"},
		{"guest=1080 | ignore=true", "udp 0.0.0.0:1080", ignored + "ignored by rum.toml:3"},
		{"guest=1080 | ignore=true", "tcp 0.0.0.0:1081", ignored + "ignored by rum.toml:3"},
		// One does not match for each of its reasons, so that the other does.
		{"guest=1080,process='x',host=1081 | guest=1080,host=1082", "tcp 0.0.0.0:1080 y[1]", "127.0.0.1:1082 [::1]:1082"},
		{"guest=1080,process='x',host=1081 | guest=1080,host=1082", "tcp 0.0.0.0:1080 x[1]", "127.0.0.1:1081 [::1]:1081"},
		{"guest=1080,guest_ip='loopback',host=1081 | guest=1080,host=1082", "tcp 0.0.0.0:1080", "127.0.0.1:1082 [::1]:1082"},
		{"guest=1080,vm='x',host=1081 | guest=1080,host=1082", "tcp 0.0.0.0:1080", "127.0.0.1:1082 [::1]:1082"},
		{"guest=1080,proto='udp',host=1081 | guest=1080,host=1082", "tcp 0.0.0.0:1080", "127.0.0.1:1082 [::1]:1082"},
		{"guest=1080,host=1081,reverse=true | guest=1080,host=1082", "tcp 0.0.0.0:1080", "127.0.0.1:1082 [::1]:1082"},
		{"guest=1085,host_ip='*' | guest='1080-1089'", "tcp 0.0.0.0:1085", "0.0.0.0:1085 [::]:1085"},
		{"guest=1085,host_ip='*' | guest='1080-1089'", "tcp 0.0.0.0:1086", "127.0.0.1:1086 [::1]:1086"},
		{"guest=1080,host_socket='/s' | ignore=true", "tcp 0.0.0.0:1080", "/s"},
		// A hole in a range.
		{"guest=4500,ignore=true | guest='4000-4999',host='14000-14999'", "tcp 0.0.0.0:4500", ignored + "ignored by rum.toml:2"},
		{"guest=4500,ignore=true | guest='4000-4999',host='14000-14999'", "tcp 0.0.0.0:4501", "127.0.0.1:14501 [::1]:14501"},
	} {
		if got := place(rules(t, row.rules).Decide("dev", listener(t, row.listener))); got != row.want {
			t.Errorf("%q, %s: got %s, want %s", row.rules, row.listener, got, row.want)
		}
	}
}

func TestNoiseStaysInTheGuestUnlessNamed(t *testing.T) {
	for _, row := range []struct{ listener, reason string }{
		{"tcp 0.0.0.0:22", "the guest's ssh"},
		{"tcp [::]:22", "the guest's ssh"},
		{"tcp 127.0.0.53:53", "a DNS stub"},
		{"udp 127.0.0.54:53", "a DNS stub"},
		{"udp 192.168.122.1:53 dnsmasq[7]", "a DNS stub"},
		{"udp 0.0.0.0:67 dnsmasq[7]", "DHCP"},
		{"udp 0.0.0.0:68", "DHCP"},
		{"udp [fe80::1]:546", "DHCPv6"},
		{"udp 0.0.0.0:123", "NTP"},
		{"udp [::1]:323", "chrony's control port"},
		{"udp 0.0.0.0:5353", "mDNS"},
		{"udp 0.0.0.0:5355", "LLMNR"},
		{"tcp 0.0.0.0:5355", "LLMNR"},
	} {
		l := listener(t, row.listener)
		for _, general := range []string{"", "host_ip='*'", "vm='dev'", "guest_ip='wildcard' | guest_ip='loopback'"} {
			d := rules(t, general).Decide("dev", l)
			if !d.Ignored || d.Rule != config.DefaultRule || d.Reason != row.reason+named {
				t.Errorf("%s with %q: got %+v", row.listener, general, d)
			}
		}
		if d := rules(t, "ignore=true").Decide("dev", l); d.Rule != "rum.toml:2" {
			t.Errorf("%s: a rule that ignores everything is not named: %+v", row.listener, d)
		}
		if d := rules(t, "guest='1-65000',proto='any'").Decide("dev", l); d.Ignored {
			t.Errorf("%s: not forwarded though named: %+v", row.listener, d)
		}
		// Below 1024 a program's name, which the guest chooses, is not enough.
		l.Process = "noisy[7]"
		if d := rules(t, "process='noisy'").Decide("dev", l); d.Ignored != (l.Addr.Port() < 1024) {
			t.Errorf("%s: its process is named: %+v", row.listener, d)
		}
	}
	for _, forwarded := range []string{
		"tcp 0.0.0.0:5353", "tcp 0.0.0.0:40000", "udp 0.0.0.0:32767", "udp 0.0.0.0:61000",
		"udp 0.0.0.0:5300 dnsmasq[8]", "tcp 0.0.0.0:2222 sshd[3]",
	} {
		if d := config.Rules(nil).Decide("dev", listener(t, forwarded)); d.Ignored {
			t.Errorf("%s is ignored: %s", forwarded, d.Reason)
		}
	}
}

func TestRulesAreNamedByFileAndLine(t *testing.T) {
	c := parse(t, "\n[[ports]]\n# about the first\nguest = 80\n\n\n  [[ports]]\n  guest = 81\n")
	for port, want := range map[string]string{"80": "rum.toml:2", "81": "rum.toml:7", "82": config.DefaultRule} {
		if d := c.Rules.Decide("", listener(t, "tcp 0.0.0.0:"+port)); d.Rule != want {
			t.Errorf("port %s: %q, want %q", port, d.Rule, want)
		}
	}
}

func TestStaticPortsAreKnownBeforehand(t *testing.T) {
	for _, row := range []struct{ rules, want string }{
		{"guest=80", ""},
		{"guest=80,static=true", "tcp 0.0.0.0:80"},
		{"guest=80,static=true,vm='other'", ""},
		{"guest=80,static=true,proto='any'", "tcp 0.0.0.0:80, udp 0.0.0.0:80"},
		{"guest=53,static=true,proto='udp',host=5300", "udp 0.0.0.0:53"},
		{"guest='80-82',static=true", "tcp 0.0.0.0:80, tcp 0.0.0.0:81, tcp 0.0.0.0:82"},
		{"guest=80,static=true,guest_ip='localhost'", "tcp 0.0.0.0:80"},
		{"guest=80,static=true,guest_ip='loopback'", "tcp 127.0.0.1:80"},
		{"guest=80,static=true,guest_ip='10.0.0.7'", "tcp 10.0.0.7:80"},
		{"guest=22,host=2222,static=true", "tcp 0.0.0.0:22"},
		{"guest=65535,static=true", "tcp 0.0.0.0:65535"},
		{"guest=81,ignore=true | guest='80-82',static=true", "tcp 0.0.0.0:80, tcp 0.0.0.0:82"},
		{"guest=81,process='x',host=9 | guest='80-82',static=true", "tcp 0.0.0.0:80, tcp 0.0.0.0:81, tcp 0.0.0.0:82"},
		{"guest=81,guest_ip='wildcard' | guest='80-82',static=true", "tcp 0.0.0.0:80, tcp 0.0.0.0:82"},
		{"guest_socket='/s',host=80,static=true", ""},
	} {
		var got []string
		for _, l := range rules(t, row.rules).Static("dev") {
			got = append(got, l.Proto+" "+l.Addr.String())
		}
		if strings.Join(got, ", ") != row.want {
			t.Errorf("%s: got %q, want %s", row.rules, got, row.want)
		}
	}
}

func TestPortsBelow1024StayInTheGuestUntilARuleNamesThem(t *testing.T) {
	const (
		web  = "ignored: below 1024: add a rule, guest = 80, host = 8080"
		last = `ignored: below 1024: add a rule, guest = 1023, host = 9023, proto = "udp"`
	)
	for _, row := range []struct{ rules, listener, want string }{
		{"", "tcp 0.0.0.0:80", web},
		{"", "udp [::1]:1023", last},
		{"", "tcp 0.0.0.0:1024", "127.0.0.1:1024 [::1]:1024"},
		{"host_ip='*'", "tcp 0.0.0.0:80", web},
		{"process='nginx'", "tcp 0.0.0.0:80 nginx[7]", web}, // a name is for the guest to choose
		{"process='nginx'", "tcp 0.0.0.0:1080 nginx[7]", "127.0.0.1:1080 [::1]:1080"},
		{"guest=80,host=8080", "tcp 0.0.0.0:80", "127.0.0.1:8080 [::1]:8080"},
		{"guest='1-1023',process='nginx'", "tcp 0.0.0.0:80 nginx[7]", "127.0.0.1:80 [::1]:80"},
		{"ignore=true", "tcp 0.0.0.0:80", "ignored: ignored by rum.toml:2"},
	} {
		if got := place(rules(t, row.rules).Decide("dev", listener(t, row.listener))); got != row.want {
			t.Errorf("%q, %s: got %s, want %s", row.rules, row.listener, got, row.want)
		}
	}
}

func TestEphemeralPortsStayInTheGuestUnlessARuleOrTheWrittenRangeCoversThem(t *testing.T) {
	l := listener(t, "tcp 0.0.0.0:40000 python3[7]")
	for rules, want := range map[string]string{
		"":                                          "ignored: ephemeral",
		"[auto_ports]\nenabled = true\n":            "ignored: ephemeral",
		"[auto_ports]\nrange = \"1024-39999\"\n":    "ignored: ephemeral",
		"[auto_ports]\nrange = \"1024-65535\"\n":    "127.0.0.1:40000 [::1]:40000",
		"[[ports]]\nhost_ip = \"*\"\n":              "ignored: ephemeral",
		"[[ports]]\nguest = 40000\nhost = 4000\n":   "127.0.0.1:4000 [::1]:4000",
		"[[ports]]\nprocess = \"^python3$\"\n":      "127.0.0.1:40000 [::1]:40000",
		"[[ports]]\nguest = 40000\nignore = true\n": "ignored: ignored by rum.toml:1",
	} {
		for _, proto := range []string{"tcp", "udp"} {
			l.Proto, l.Ephemeral = proto, true
			if strings.Contains(rules, "guest =") {
				l.Proto = "tcp"
			}
			if got := place(parse(t, rules).Rules.Decide("dev", l)); got != want {
				t.Errorf("%q, %s: got %s, want %s", rules, proto, got, want)
			}
			l.Ephemeral = false
			if got := place(config.Rules(nil).Decide("dev", l)); got != "127.0.0.1:40000 [::1]:40000" {
				t.Errorf("a port that this guest gives to no client: %s", got)
			}
		}
	}
}

func TestAutoPorts(t *testing.T) {
	for _, row := range []struct{ text, listener, want string }{
		{"range = \"5000-6000\"\nbind = \"127.0.0.1\"", "tcp 0.0.0.0:5000", "127.0.0.1:5000"},
		{"range = \"5000-6000\"\nbind = \"127.0.0.1\"", "udp 0.0.0.0:6000", "127.0.0.1:6000"},
		{"range = \"5000-6000\"", "tcp 0.0.0.0:6001", "ignored: not in the range of auto_ports, 5000-6000"},
		{"range = \"5000-6000\"", "tcp 0.0.0.0:3000", "127.0.0.1:13000 [::1]:13000"}, // the rule's
		{"range = 5000", "tcp 0.0.0.0:5000", "127.0.0.1:5000 [::1]:5000"},
		{"range = \"1-65535\"", "tcp 0.0.0.0:80", "127.0.0.1:80 [::1]:80"},
		{"range = \"1-65535\"", "tcp 0.0.0.0:22", "ignored: the guest's ssh" + named},
		{"bind = \"*\"", "tcp 0.0.0.0:5000", "0.0.0.0:5000 [::]:5000"},
		{"bind = \"localhost\"", "tcp 0.0.0.0:5000", "127.0.0.1:5000 [::1]:5000"},
		{"enabled = false", "tcp 0.0.0.0:5000", "ignored: auto_ports is off"},
		{"enabled = false", "tcp 0.0.0.0:3000", "127.0.0.1:13000 [::1]:13000"},
		{"enabled = true", "tcp 0.0.0.0:5000", "127.0.0.1:5000 [::1]:5000"},
		{"", "tcp 0.0.0.0:5000", "127.0.0.1:5000 [::1]:5000"},
	} {
		c := parse(t, "[auto_ports]\n"+row.text+"\n\n[[ports]]\nguest = 3000\nhost = 13000\n")
		d := c.Rules.Decide("dev", listener(t, row.listener))
		if got := place(d); got != row.want {
			t.Errorf("%q, %s: got %s, want %s", row.text, row.listener, got, row.want)
		}
		if strings.HasPrefix(row.listener, "tcp 0.0.0.0:5000") && d.Rule != "rum.toml:1" {
			t.Errorf("%q: decided by %q", row.text, d.Rule)
		}
		if len(c.Rules.Static("dev"))+len(c.Rules.Sockets("dev"))+len(c.Rules.Reverses("dev")) > 0 {
			t.Errorf("%q is taken for a rule of its own", row.text)
		}
	}
	for text, want := range map[string]string{
		"enabled = 1":           "rum.toml:2:1: auto_ports.enabled: want true or false",
		"range = \"6000-5000\"": "rum.toml:2:1: auto_ports.range: the range",
		"range = true":          "rum.toml:2:1: auto_ports.range: want a port",
		"bind = \"lan\"":        "rum.toml:2:1: auto_ports.bind: \"lan\" is neither",
		"ranges = \"1-2\"":      "rum.toml:2:1: auto_ports.ranges: unknown key; did you mean range?",
	} {
		if _, err := config.Parse("rum.toml", []byte("[auto_ports]\n"+text+"\n")); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestAProcessIsAskedForOnlyWhereItDecides(t *testing.T) {
	rules := parse(t, `
[[forward]]
guest = 8080
host = 80

[[forward]]
guest = "8000-9000"
process = "postgres"
ignore = true

[[forward]]
guest = 8500
host = 8500
`).Rules
	for _, row := range []struct {
		port uint16
		asks bool
	}{{8080, false}, {8081, true}, {8500, true}, {9001, false}, {22, false}} {
		l := portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), row.port)}
		if got := rules.AsksProcess("dev", l); got != row.asks {
			t.Errorf("port %d: %v", row.port, got)
		}
	}
}
