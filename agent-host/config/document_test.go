package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

func TestMistakesAreNamedByFileLineColumnAndKey(t *testing.T) {
	const p = "[[ports]]\n"
	for _, row := range []struct{ text, want string }{
		// Syntax.
		{"[[ports]]\nguest = \n", `2:9: ports.guest: expected value but found '\n' instead`},
		{"guest 80", `1:7: expected '.' or '=', but got '8' instead`},
		{"# é\n[[ports]\nguest = 80\n", `2:8: expected end of table array name delimiter ']', but got '\n' instead`},
		{p + "[image\nbase = 'x'\n", `2:7: ports: expected '.' or ']' to end table name, but got '\n' instead`},
		{"[image\n", `1:7: expected '.' or ']' to end table name, but got '\n' instead`},
		{"a = 1\na = 2\n", `2:1: a: Key 'a' has already been defined.`},
		// Unknown keys.
		{p + "gust = 80\n", `2:1: ports.gust: unknown key; did you mean guest?`},
		{p + "  hots = 80\n", `2:3: ports.hots: unknown key; did you mean host?`},
		{p + "guestPort = 80\n", `2:1: ports.guestPort: unknown key; did you mean guest?`},
		{p + "guestIP = '::1'\n", `2:1: ports.guestIP: unknown key; did you mean guest_ip?`},
		{p + "protocol = 'tcp'\n", `2:1: ports.protocol: unknown key; did you mean proto?`},
		{p + "colour = 1\n", `2:1: ports.colour: unknown key; known here are guest, host, bind, proto, guest_ip, host_ip, vm, process, cwd, label, open, hold, proxy_protocol, on_conflict, ignore, static, reverse, guest_socket, host_socket`},
		{"[port]\n", `1:1: port: unknown key; did you mean ports?`},
		{"[network]\nsubent = 'x'\n", `2:1: network.subent: unknown key; did you mean subnet?`},
		{p + "guest = 1\n" + p + "x = '''\n[[ports]]\n'''\ngeust = 2\n", "4:1: ports.x: unknown key; known here are guest, host, bind, proto, guest_ip, host_ip, vm, process, cwd, label, open, hold, proxy_protocol, on_conflict, ignore, static, reverse, guest_socket, host_socket\n7:1: ports.geust: unknown key; did you mean guest?"},
		{"ports = [{guest = 1}, {guest = 2, \"hist\" = 3}]", `1:35: ports.hist: unknown key; did you mean host?`},
		{"ports = [ # {\n  {guest = 1, host = [1, [2]]},\n  {}]", "2:15: ports.host: want a port such as 8080 or a range such as \"4000-4999\", not an array\n3:3: ports: the rule is empty; say at least guest, or remove it"},
		{"network.mode = 'nat'\nnetwork.modus = 'nat'", `2:1: network.modus: unknown key; known here are mode, host_only, subnet, hostname, interfaces, ip_wait_timeout_s, nat, wait_for_ip`},
		{p + "guest = 1\n[ports.extra]\na = 1\n", `3:1: ports.extra: unknown key; known here are guest, host, bind, proto, guest_ip, host_ip, vm, process, cwd, label, open, hold, proxy_protocol, on_conflict, ignore, static, reverse, guest_socket, host_socket`},
		{p + "vm = \"\"\"a\"\"\"\"\"\ngust = 1\n", `3:1: ports.gust: unknown key`},
		{p + "vm = \"\\\"#\" # \"\nguest_ip = '\\'\n", `3:1: ports.guest_ip: "\\" is neither`},
		{p + "äöü = 1\n" + p + "guest = 0 # é\n", "2:1"},
		// Types and values.
		{p + "guest = 1\non_conflict = 'nxt'\n", `3:1: ports.on_conflict: "nxt" is not known; did you mean "next"?`},
		{p + "guest = 1\nopen = 'yes'\n", `3:1: ports.open: want true or false, not a string`},
		{p + "guest = 1\nproto = 'udp'\nopen = true\n", `4:1: ports.open: is for tcp only, and this rule is for udp: say proto = "tcp"`},
		{p + "guest = 1\nlabel = \"  \"\n", `3:1: ports.label: is blank; leave the key out instead`},
		{p + "guest = 1\nlabel = \"the\\u001b[31m shop\"\n", `3:1: ports.label: "the\x1b[31m shop" cannot be shown in a column`},
		{"ports = 1", `1:1: ports: want tables, each under a [[ports]] of its own, not an integer`},
		{"[ports]\nguest = 80", `1:1: ports: want tables, each under a [[ports]] of its own, not a table`},
		{"network = 1", `1:1: network: want a table, [network], not an integer`},
		{p + "guest = 80.5\n", `2:1: ports.guest: want a port such as 8080 or a range such as "4000-4999", not a number with a fraction`},
		{p + "guest = 0\n", `2:1: ports.guest: 0 is not a port; those are 1 to 65535`},
		{p + "guest = -1\n", `2:1: ports.guest: -1 is not a port; those are 1 to 65535`},
		{p + "guest = 65536\n", `2:1: ports.guest: 65536 is not a port; those are 1 to 65535`},
		{p + "guest = '5-4'\n", `2:1: ports.guest: the range "5-4" ends before it begins`},
		{p + "guest = '5-'\n", `2:1: ports.guest: "5-" is not a port such as 8080 or a range such as "4000-4999"`},
		{p + "guest = 1\nignore = 'yes'\n", `3:1: ports.ignore: want true or false, not a string`},
		{p + "guest = 1\nproto = 'tpc'\n", `3:1: ports.proto: "tpc" is not known; did you mean "tcp"?`},
		{p + "guest = 1\nproto = 'sctp'\n", `3:1: ports.proto: "sctp" is not known; it is one of ["tcp" "udp" "any"]`},
		{p + "guest = 1\nhost_ip = 'eth0'\n", `3:1: ports.host_ip: "eth0" is neither an IP address nor one of ["localhost" "*"]`},
		{p + "guest = 1\nhost_ip = '224.0.0.1'\n", `3:1: ports.host_ip: "224.0.0.1" is neither`},
		{p + "guest = 1\nguest_ip = 'x'\n", `3:1: ports.guest_ip: "x" is neither an IP address nor one of ["localhost" "loopback" "wildcard"]`},
		{p + "guest = 1\nguest_ip = 'fe80::1%eth0'\n", `3:1: ports.guest_ip: the address of a listener has no zone; write fe80::1`},
		{p + "guest = 1\nvm = 'a['\n", `3:1: ports.vm: "a[" is not a pattern`},
		{p + "guest = 1\nvm = ''\n", `3:1: ports.vm: is empty; leave the key out instead`},
		{p + "guest = 1\nproxy_protocol = 'v1'\n", `3:1: ports.proxy_protocol: "v1" is not known; it is one of ["v2"]`},
		{p + "guest = 1\nproxy_protocol = 2\n", `3:1: ports.proxy_protocol: want a string, not an integer`},
		{p + "guest = 1\nproxy_protocol = true\n", `3:1: ports.proxy_protocol: want a string, not true or false`},
		{p + "guest = 1\nproto = 'udp'\nproxy_protocol = 'v2'\n", `4:1: ports.proxy_protocol: is for tcp only, and this rule is for udp: say proto = "tcp"`},
		{p + "vm = 'a'\nproxy_protocol = 'v2'\n", `3:1: ports.proxy_protocol: is for tcp only, and this rule is for any: say proto = "tcp"`},
		{p + "guest = 1\nproto = 'udp'\nhold = '5s'\n", `4:1: ports.hold: is for tcp only: datagrams do not wait`},
		{p + "process = '('\n", "2:1: ports.process: error parsing regexp: missing closing ): `(`"},
		{"[network]\nmode = 'bridge'\n", `2:1: network.mode: "bridge" is not known; it is one of ["nat" "none"]`},
		{"[network]\nsubnet = '192.168.50.1/24'\n", `2:1: network.subnet: "192.168.50.1/24" has bits behind its 24; did you mean "192.168.50.0/24"?`},
		{"[network]\nsubnet = 'fd00::/64'\n", `2:1: network.subnet: "fd00::/64" is not an IPv4 subnet such as "192.168.50.0/24"`},
		{"[network]\nsubnet = '192.168.50.0/30'\n", `2:1: network.subnet: /30 is not a size between /8 and /29`},
		{"[network]\nsubnet = '8.8.8.0/24'\n", `2:1: network.subnet: 8.8.8.0/24 is not private`},
		{"[network]\nhost_only = ''\nsubnet = '10.0.0.0/24'\n", `3:1: network.subnet: says nothing when host_only is ""`},
		// What does not fit.
		{p + "guest = '1-3'\nhost = '1-2'\n", `3:1: ports.host: 2 ports for 3 ports in the guest: the ranges must be of one length`},
		{p + "guest = '1-3'\nhost = 9\n", `3:1: ports.host: one port for 3 ports in the guest: the ranges must be of one length`},
		{p, `1:1: ports: the rule is empty; say at least guest, or remove it`},
		{p + "host = 1\n", `2:1: ports.host: which guest port is it for? say guest too`},
		{p + "static = true\n", `2:1: ports.static: which port is to be open from the start? say guest too`},
		{p + "guest = '1-2000'\nstatic = true\n", `2:1: ports.guest: 2000 ports at once are more than 1024, which is the most`},
		{p + "reverse = true\n", `2:1: ports.reverse: where in the guest? say guest or guest_socket too`},
		{p + "guest = 1\nreverse = true\nproto = 'udp'\n", `4:1: ports.proto: reverse is for tcp only`},
		{p + "guest = 1\nreverse = true\nguest_ip = 'loopback'\n", `4:1: ports.guest_ip: name one address to listen on in the guest, or "localhost"`},
		{p + "guest = 1\nreverse = true\nhost_ip = '*'\n", `4:1: ports.host_ip: name one address to reach on the host, or "localhost"`},
		{p + "guest_socket = '/a'\n", `2:1: ports.guest_socket: where on the host? say host or host_socket too`},
		{p + "host_socket = '/a'\n", `2:1: ports.host_socket: which guest port is it for? say guest or guest_socket too`},
		{p + "guest = '1-2'\nhost_socket = '/a'\n", `2:1: ports.guest: a socket belongs to one port, not to 2`},
		{p + "guest_socket = '/a'\nhost = '1-2'\n", `3:1: ports.host: a socket belongs to one port, not to 2`},
		{p + "guest_socket = '/a'\nhost = 1\nproto = 'any'\n", `4:1: ports.proto: a socket carries streams: leave proto out`},
		{p + "guest_socket = 'a'\nhost = 1\n", `2:1: ports.guest_socket: "a" is not an absolute path`},
		{p + "guest_socket = '~/a'\nhost = 1\n", `2:1: ports.guest_socket: "~/a" is not an absolute path`},
		{p + "guest = 1\nhost_socket = 'a'\n", `3:1: ports.host_socket: "a" is not an absolute path and does not begin with "~/"`},
		{p + "guest = 1\nhost_socket = '/a/'\n", `3:1: ports.host_socket: "/a/" cannot be a socket`},
		{p + "guest = 1\nhost_socket = '/" + strings.Repeat("a", 107) + "'\n", `3:1: ports.host_socket: 108 bytes are more than the 107`},
	} {
		_, err := config.Parse("rum.toml", []byte(row.text))
		if err == nil {
			t.Errorf("%q is accepted; want %s", row.text, row.want)
			continue
		}
		var want []string
		for line := range strings.SplitSeq(row.want, "\n") {
			want = append(want, "rum.toml:"+line)
		}
		if got := err.Error(); !strings.HasPrefix(got, strings.Join(want, "\n")) {
			t.Errorf("%q:\n got %s\nwant %s", row.text, got, strings.Join(want, "\n"))
		}
		if _, ok := errors.AsType[*config.Error](err); !ok {
			t.Errorf("%q: no *Error in %T", row.text, err)
		}
	}
}

func TestKeysThatContradictEachOtherAreRefused(t *testing.T) {
	value := map[string]string{
		"guest": "80", "host": "81", "guest_ip": `"127.0.0.1"`, "host_ip": `"127.0.0.1"`, "process": `"x"`, "cwd": `"~/x"`, "proxy_protocol": `"v2"`,
		"bind": `"127.0.0.1"`, "hold": `"5s"`,
		"on_conflict": `"next"`, "open": "true", "ignore": "true", "static": "true", "reverse": "true", "guest_socket": `"/g"`, "host_socket": `"/h"`,
	}
	for _, row := range [][2]string{
		{"host", "ignore"}, {"host_ip", "ignore"}, {"host_socket", "ignore"}, {"static", "ignore"},
		{"reverse", "ignore"}, {"guest_socket", "ignore"}, {"static", "reverse"}, {"process", "reverse"}, {"cwd", "reverse"}, {"cwd", "static"}, {"cwd", "guest_socket"},
		{"process", "static"}, {"guest_socket", "guest"}, {"host_socket", "host"}, {"guest_ip", "guest_socket"},
		{"process", "guest_socket"}, {"host_ip", "host_socket"}, {"bind", "host_socket"}, {"bind", "ignore"}, {"bind", "host_ip"},
		{"hold", "ignore"}, {"hold", "reverse"}, {"proxy_protocol", "ignore"}, {"proxy_protocol", "reverse"}, {"proxy_protocol", "host_socket"},
		{"on_conflict", "ignore"}, {"on_conflict", "reverse"}, {"on_conflict", "host_socket"}, {"open", "ignore"}, {"open", "reverse"}, {"open", "host_socket"},
	} {
		text := "[[ports]]\n"
		if row[0] != "guest_socket" && row[1] != "guest_socket" && row[0] != "guest" && row[1] != "guest" {
			text = "[[ports]]\nguest = 80\n"
		}
		text += fmt.Sprintf("%s = %s\n%s = %s\n", row[1], value[row[1]], row[0], value[row[0]])
		_, err := config.Parse("rum.toml", []byte(text))
		line := strings.Count(text, "\n")
		want := fmt.Sprintf("rum.toml:%d:1: ports.%s: cannot go with %s: ", line, row[0], row[1])
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s with %s: got %v, want %s", row[0], row[1], err, want)
		}
		// Saying that something is not so contradicts nothing.
		if value[row[1]] == "true" && row[0] != "guest_socket" {
			text = strings.Replace(text, row[1]+" = true", row[1]+" = false", 1)
			if _, err := config.Parse("rum.toml", []byte(text)); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		}
	}
}

func TestTwoRulesOnOneHostPortAreRefused(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"guest=80,host=8080 | guest=81,host=8080", "2: ports.host: rum.toml:1 has host port 8080 already, for another guest port"},
		{"guest=80,host=8080 | guest=8080", "2: ports.guest: rum.toml:1 has host port 8080"},
		{"guest=80,host=8080 | guest='8000-8099'", "2: ports.guest: rum.toml:1 has host port 8080"},
		{"guest=80,host=8080 | guest=80,host=8080", "2: ports.host: rum.toml:1 has host port 8080 already, for the same guest port"},
		{"guest='80-89' | guest=85", "2: ports.guest: rum.toml:1 has host port 85 already, for the same"},
		{"guest=80,host=9000,host_ip='*' | guest=81,host=9000,host_ip='127.0.0.2'", "2: ports.host: rum.toml:1 has host port 9000"},
		{"guest=80,host=9000,proto='any' | guest=81,host=9000,proto='udp'", "2: ports.host: rum.toml:1 has host port 9000"},
		{"guest=80,host=9000,vm='a*' | guest=81,host=9000,vm='ab'", "2: ports.host: rum.toml:1 has host port 9000"},
		{"guest=80,host_socket='/s' | guest=81,host_socket='/s'", "2: ports.host_socket: rum.toml:1 has this socket already"},
		{"guest_socket='/a',host=1 | guest_socket='/b',host=1", "2: ports.host: rum.toml:1 has host port 1 already"},
		{"guest=80,reverse=true | guest=80,host=81,reverse=true", "2: ports.guest: rum.toml:1 listens on guest port 80 already"},
		{"guest_socket='/a',host=1,reverse=true | guest_socket='/a',host=2,reverse=true", "2: ports.guest_socket: rum.toml:1 listens on this socket already"},
		{"guest=80,host=8080 | guest='8000-8099' | guest=8080,ignore=true", "2: ports.guest: rum.toml:1 has host port 8080"},
		{"guest=8080,ignore=true,vm='x' | guest=80,host=8080 | guest='8000-8099'", "3: ports.guest: rum.toml:2 has host port 8080"},
		{"guest=8080,ignore=true | guest='80-81',host='8080-8081' | guest='8000-8099'", "3: ports.guest: rum.toml:2 has host port 8081"},
		// None of these is a conflict.
		{"guest=80,host=8080 | guest=81,host=8081", ""},
		{"guest=80,host=8080 | guest=81,host=8080,proto='udp'", ""},
		{"guest=80,host=8080,host_ip='127.0.0.1' | guest=81,host=8080,host_ip='127.0.0.2'", ""},
		{"guest=80,host=8080,host_ip='0.0.0.0' | guest=81,host=8080,host_ip='::1'", ""},
		{"guest=80,host=8080,vm='a' | guest=81,host=8080,vm='b'", ""},
		{"guest=80,host=8080 | host_ip='127.0.0.2'", ""},
		{"guest=80,host=8080 | proto='tcp'", ""},
		{"guest=85,host_ip='*' | guest='80-89'", ""},
		{"guest=80,host=8080 | guest=8080,ignore=true | guest='8000-8099'", ""},
		{"guest=8080,ignore=true | guest=80,host=8080 | guest='8000-8099'", ""},
		{"guest='8080-8081',ignore=true | guest='80-81',host='8080-8081' | guest='8000-8099'", ""},
		{"guest=80,host=8080 | guest=8080,host=80,reverse=true", ""},
		{"guest=80,reverse=true | guest=80,reverse=true,guest_ip='192.0.2.1'", ""},
	} {
		var text strings.Builder
		text.WriteString("ports = [")
		for rule := range strings.SplitSeq(row.text, " | ") {
			text.WriteString("{" + rule + "},\n")
		}
		text.WriteString("]")
		_, err := config.Parse("rum.toml", []byte(text.String()))
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v", row.text, err)
		case row.want != "" && err == nil:
			t.Errorf("%s is accepted", row.text)
		case row.want != "":
			e, _ := errors.AsType[*config.Error](err)
			if got := fmt.Sprintf("%d: %s: %s", e.Line, e.Key, e.Text); !strings.HasPrefix(got, row.want) {
				t.Errorf("%s:\n got %s\nwant %s", row.text, got, row.want)
			}
		}
	}
}

func TestHugeFilesAreRefused(t *testing.T) {
	if _, err := config.Parse("f", []byte(strings.Repeat("#", 300<<10))); err == nil {
		t.Error("a file of 300 KiB is accepted")
	}
	if _, err := config.Parse("f", []byte("\n"+strings.Repeat("[[ports]]\nguest=1\n", 1001))); err == nil || !strings.Contains(err.Error(), "f:2002:1: ports: 1001 rules") {
		t.Errorf("got %v", err)
	}
}
