package config_test

import (
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

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
