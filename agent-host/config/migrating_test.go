package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

// theirs says what the neighbour does with each example that the tables of
// docs/migrating.md translate: a listener and where it is on the host. "static"
// is the listeners that are forwarded before they exist, and "rule" is a rule
// that is not about listeners.
var theirs = map[string][][2]string{
	`guestPort: 443 hostIP: "0.0.0.0"`: {
		{"tcp 127.0.0.1:443", "0.0.0.0:443"}, {"tcp [::]:443", "0.0.0.0:443"}, {"udp 0.0.0.0:443", "0.0.0.0:443"}, {"udp 0.0.0.0:4430", both("4430")}},
	`guestPortRange: [4000, 4999] hostIP: "0.0.0.0"`: {
		{"tcp 127.0.0.1:4000", "0.0.0.0:4000"}, {"tcp 0.0.0.0:4999", "0.0.0.0:4999"}, {"tcp 0.0.0.0:5000", both("5000")}},
	`guestPort: 80 hostPort: 8080`: {
		{"tcp 127.0.0.1:80", both("8080")}, {"tcp 0.0.0.0:80", both("8080")}, {"tcp 0.0.0.0:8081", both("8081")}},
	`guestPort: 53 hostPort: 5300 proto: "udp"`: {
		{"udp 127.0.0.1:53", both("5300")}, {"udp 127.0.0.53:53", "ignored: a DNS stub; a rule that names the port forwards it"}, {"tcp 0.0.0.0:5300", both("5300")}},
	`guestIP: "127.0.0.2" hostIP: "127.0.0.2"`: {
		{"tcp 127.0.0.2:8081", "127.0.0.2:8081"}, {"tcp 127.0.0.1:8081", both("8081")}, {"udp 127.0.0.2:8081", "127.0.0.2:8081"},
		{"tcp 0.0.0.0:8081", "127.0.0.2:8081"}, {"tcp [::]:8081", "127.0.0.2:8081"}},
	`guestPort: 8888 ignore: true`: {
		{"tcp 127.0.0.1:8888", "ignored: ignored by rum.toml:2"}, {"tcp [::1]:8888", "ignored: ignored by rum.toml:3"},
		{"tcp 0.0.0.0:8888", both("8888")}, {"tcp [::]:8888", both("8888")}},
	`guestPort: 7443 guestIP: "0.0.0.0" guestIPMustBeZero: true hostIP: "0.0.0.0"`: {
		{"udp 0.0.0.0:7443", "0.0.0.0:7443"}, {"tcp [::]:7443", "0.0.0.0:7443"}, {"tcp 127.0.0.1:7443", both("7443")}},
	`guestPort: 7443 guestIP: "0.0.0.0" guestIPMustBeZero: false hostIP: "0.0.0.0"`: {
		{"tcp 0.0.0.0:7443", "0.0.0.0:7443"}, {"tcp 127.0.0.3:7443", "0.0.0.0:7443"}, {"tcp 192.168.5.15:7443", "0.0.0.0:7443"}},
	`guestPort: 8080 guestIP: "::" hostIP: "0.0.0.0"`: {
		{"tcp 127.0.0.1:8080", "0.0.0.0:8080"}, {"tcp 192.168.5.15:8080", "0.0.0.0:8080"}, {"udp [::1]:8080", "0.0.0.0:8080"}, {"tcp [::]:8080", "0.0.0.0:8080"}},
	`guestPort: 80 hostPort: 8000 proto: "tcp" static: true`: {
		{"tcp 127.0.0.1:80", both("8000")}, {"static", "tcp 0.0.0.0:80"}},
	`guestSocket: "/run/user/1000/my.sock" hostSocket: mysocket`: {
		{"rule", "/run/user/1000/my.sock -> ~/.rum/mysocket"}},
	`guestSocket: "/tmp/mc.sock" hostSocket: "{{.Home}}/mc.sock" reverse: true`: {
		{"rule", "/tmp/mc.sock <- ~/mc.sock"}},
	`guestSocket: "/run/app.sock" hostPort: 8000`: {{"rule", "/run/app.sock -> 8000"}},
	`guestPort: 3306 hostSocket: "{{.Home}}/mysql.sock"`: {
		{"tcp 127.0.0.1:3306", "~/mysql.sock"}},
	`guestIP: "0.0.0.0" guestIPMustBeZero: false proto: any ignore: true`: {
		{"tcp 127.0.0.1:80", "ignored: ignored by rum.toml:2"}, {"udp [::]:80", "ignored: ignored by rum.toml:2"}},
	`*(the rule Lima appends)*`: {
		{"tcp 127.0.0.1:8081", both("8081")}, {"tcp [::1]:8081", both("8081")}, {"udp 0.0.0.0:8081", both("8081")},
		{"tcp 127.0.0.2:8081", "ignored: ignored by rum.toml:3"}, {"tcp 192.168.5.15:8081", "ignored: ignored by rum.toml:3"}},

	`guest: 80, host: 8080`: {
		{"tcp 0.0.0.0:80", both("8080")}, {"static", "tcp 0.0.0.0:80"}},
	`guest: 80, host: 8080, host_ip: "127.0.0.1"`: {
		{"tcp 0.0.0.0:80", "127.0.0.1:8080"}, {"static", "tcp 0.0.0.0:80"}},
	`guest: 80, host: 8080, host_ip: "0.0.0.0"`: {
		{"tcp 0.0.0.0:80", "0.0.0.0:8080"}, {"static", "tcp 0.0.0.0:80"}},
	`guest: 80, host: 8080, guest_ip: "192.168.33.10"`: {
		{"tcp 192.168.33.10:80", both("8080")}, {"static", "tcp 192.168.33.10:80"}},
	`guest: 2003, host: 12003, protocol: "udp"`: {
		{"udp 0.0.0.0:2003", both("12003")}, {"static", "udp 0.0.0.0:2003"}},
	`guest: 2003, host: 12003, protocol: "tcp" guest: 2003, host: 12003, protocol: "udp"`: {
		{"tcp 0.0.0.0:2003", both("12003")}, {"udp 0.0.0.0:2003", both("12003")}, {"static", "tcp 0.0.0.0:2003, udp 0.0.0.0:2003"}},
	`guest: 80, host: 8080, auto_correct: true`: {
		{"tcp 0.0.0.0:80", both("8080")}, {"static", "tcp 0.0.0.0:80"}},
	`guest: 22, host: 2222, id: "ssh"`: {
		{"tcp 0.0.0.0:22", both("2222")}, {"static", "tcp 0.0.0.0:22"}},
}

// both is a port on localhost.
func both(port string) string { return "127.0.0.1:" + port + " [::1]:" + port }

func TestEveryRowOfTheMigrationTablesIsTrue(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "migrating.md"))
	if err != nil {
		t.Fatal(err)
	}
	left := make(map[string]bool)
	for example := range theirs {
		left[example] = true
	}
	for line := range strings.SplitSeq(string(doc), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || strings.HasPrefix(cells[1], "---") || !strings.Contains(cells[2], "=") {
			continue
		}
		example := strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(cells[1]), "<br>", " "), "`", "")
		ours := strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(cells[2]), "<br>", " | "), "`", "")
		if !left[example] {
			t.Errorf("no behaviour is known for %s", example)
			continue
		}
		delete(left, example)
		all := rules(t, ours)
		for _, want := range theirs[example] {
			if got := behaviour(t, all, want[0]); got != want[1] {
				t.Errorf("%s as %s: %s is at %s, want %s", example, ours, want[0], got, want[1])
			}
		}
	}
	for example := range left {
		t.Errorf("not in the tables: %s", example)
	}
}

func behaviour(t *testing.T, all config.Rules, of string) string {
	switch of {
	case "static":
		var out []string
		for _, l := range all.Static("default") {
			out = append(out, l.Proto+" "+l.Addr.String())
		}
		return strings.Join(out, ", ")
	case "rule":
		r, arrow, host := all[0], " -> ", all[0].HostSocket
		if r.Reverse {
			arrow = " <- "
		}
		if host == "" {
			host = r.Host.String()
		}
		return r.GuestSocket + arrow + host
	}
	return place(all.Decide("default", listener(t, of)))
}

// Lima tests its rules with a file of its own, hack/test-port-forwarding.pl.
// These are its rules, and what becomes of the listeners it opens; "ipv4" is an
// address of the host. What Lima ignores at the end for want of a rule is
// ignored here by the two last rules.
func TestLimasOwnTestOfItsRulesComesOutTheSame(t *testing.T) {
	const ipv4 = "192.0.2.4"
	all := rules(t, strings.Join([]string{
		`guest_ip = "127.0.0.2", guest = "3000-3009", ignore = true`,
		`guest = "3010-3019", ignore = true`,
		`guest = "3000-3029", host = "2000-2029"`,
		`guest = "3020-3029", ignore = true`,
		`guest_ip = "localhost", guest = "3030-3039", host = "2030-2039", host_ip = "` + ipv4 + `"`,
		`guest_ip = "localhost", guest = "300-304"`,
		`guest_ip = "localhost", guest = "310-319", host_ip = "0.0.0.0"`,
		`guest_ip = "192.168.5.15", guest = "4000-4009", host_ip = "` + ipv4 + `"`,
		`guest_ip = "wildcard", guest = "4000-4009", host_ip = "` + ipv4 + `"`,
		`guest_ip = "::1", guest = "4010-4019", host_ip = "::"`,
		`guest_ip = "wildcard", guest = "4010-4019", host_ip = "::"`,
		`guest = "4020-4029", host_ip = "` + ipv4 + `"`,
		`guest = "4030-4039", host_ip = "` + ipv4 + `"`,
		`guest_ip = "wildcard", guest = "4040-4049"`,
		`guest = "4040-4049", ignore = true`,
		`guest_ip = "localhost"`,
		`ignore = true`,
	}, " | "))
	for _, row := range [][2]string{
		{"127.0.0.2:3000", "ignored"}, {"127.0.0.3:3001", both("2001")}, {"0.0.0.0:3002", both("2002")},
		{"0.0.0.0:3010", "ignored"}, {"127.0.0.1:3011", "ignored"},
		{"127.0.0.2:3020", both("2020")}, {"127.0.0.1:3021", both("2021")}, {"0.0.0.0:3022", both("2022")},
		{"[::]:3023", both("2023")}, {"[::1]:3024", both("2024")},
		{"127.0.0.1:3030", ipv4 + ":2030"}, {"0.0.0.0:3031", ipv4 + ":2031"}, {"[::]:3032", ipv4 + ":2032"}, {"[::1]:3033", ipv4 + ":2033"},
		{"127.0.0.1:300", both("300")}, {"192.168.5.15:304", "ignored"}, {"127.0.0.1:310", "0.0.0.0:310"},
		{"192.168.5.15:4000", ipv4 + ":4000"}, {"0.0.0.0:4001", ipv4 + ":4001"}, {"127.0.0.1:4002", both("4002")},
		{"[::1]:4010", "[::]:4010"}, {"[::]:4011", "[::]:4011"},
		{"127.0.0.1:4020", ipv4 + ":4020"}, {"127.0.0.2:4021", ipv4 + ":4021"}, {"192.168.5.15:4022", ipv4 + ":4022"},
		{"0.0.0.0:4023", ipv4 + ":4023"}, {"[::]:4024", ipv4 + ":4024"}, {"[::1]:4025", ipv4 + ":4025"}, {"0.0.0.0:4033", ipv4 + ":4033"},
		{"0.0.0.0:4040", both("4040")}, {"[::]:4041", both("4041")}, {"127.0.0.1:4043", "ignored"}, {"192.168.5.15:4044", "ignored"},
	} {
		if got, _, _ := strings.Cut(place(all.Decide("default", listener(t, "tcp "+row[0]))), ": "); got != row[1] {
			t.Errorf("%s: got %s, want %s", row[0], got, row[1])
		}
	}
}
