package address

import (
	"slices"
	"strings"
	"testing"
)

func TestAHostIsNamedAsAURL(t *testing.T) {
	for in, want := range map[string]Address{
		"ssh://server":               {Host: "server"},
		"ssh://me@server":            {User: "me", Host: "server"},
		"ssh://me@server:2222/":      {User: "me", Host: "server", Port: 2222},
		"ssh://build.example.org":    {Host: "build.example.org"},
		"ssh://root@[2001:db8::1]:1": {User: "root", Host: "2001:db8::1", Port: 1},
		"ssh://[fe80::1%eth0]":       {Host: "fe80::1%eth0"},
	} {
		got, err := Parse(in)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", in, got, err)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%s: %s is %+v, %v", in, got, again, err)
		}
	}
	got, is, err := ParseLibvirt("qemu+ssh://me@server/system")
	if want := (Address{User: "me", Host: "server", Libvirt: "qemu:///system"}); !is || err != nil || got != want {
		t.Errorf("got %+v, %v, %v", got, is, err)
	}
	if _, is, err := ParseLibvirt("qemu:///system"); is || err != nil {
		t.Errorf("a URI of this host is another's: %v", err)
	}
}

// What could be an option of ssh's, a command of a shell's or a path is the name of nobody.
func TestNothingThatSSHOrAShellWouldTakeForMoreIsAHost(t *testing.T) {
	for _, in := range []string{
		"", "server", "ssh://", "ssh://@server", "ssh://-oProxyCommand=id", "ssh://-l@server", "ssh://me@-server", "ssh://server:0",
		"ssh://server:65536", "ssh://server:-1", "ssh://server:+1", "ssh://me:secret@server", "ssh://server/path", "ssh://server?x=1", "ssh://server#x",
		"ssh://ser ver", "ssh://server;id", "ssh://$(id)", "ssh://`id`", "ssh://me;id@server", "ssh://se%72ver", "ssh://server\n", "ssh://a/b", "ssh://[::1",
		"ssh://[server]", "ssh://[::1%$(id)]", "ssh://" + strings.Repeat("a", 300), "http://server", "ssh:server",
	} {
		if a, err := Parse(in); err == nil {
			t.Errorf("%q is %+v", in, a)
		}
	}
	for _, in := range []string{"qemu+ssh://server", "qemu+ssh:///system", "qemu+ssh://server/other", "qemu+ssh://-x/system", "qemu+ssh://server/system?keyfile=x"} {
		if a, is, err := ParseLibvirt(in); !is || err == nil {
			t.Errorf("%q is %+v, %v", in, a, is)
		}
	}
}

func TestTheHostIsBehindAllOptionsOfSSH(t *testing.T) {
	a := Address{User: "me", Host: "server", Port: 2222, Libvirt: "qemu:///system"}
	args := a.SSH(a.Relay()...)
	i := slices.Index(args, "--")
	if i < 0 || strings.Join(args[i:], " ") != "-- server rum-host-agent relay --libvirt qemu:///system" {
		t.Errorf("ssh %s", strings.Join(args, " "))
	}
	if before := strings.Join(args[:i], " "); !strings.HasSuffix(before, "-l me -p 2222") || !strings.Contains(before, "BatchMode=yes") || !strings.Contains(before, "ServerAliveInterval=") {
		t.Errorf("ssh %s", before)
	}
}

func TestTheCommandThatInstallsTheAgentThereFitsTheAddress(t *testing.T) {
	for in, want := range map[string]string{
		"ssh://server":         "scp $(command -v rum-host-agent) server: && ssh -t server sudo install rum-host-agent /usr/local/bin/",
		"ssh://me@server:2222": "scp $(command -v rum-host-agent) scp://me@server:2222/ && ssh -t ssh://me@server:2222 sudo install rum-host-agent /usr/local/bin/",
	} {
		a, err := Parse(in)
		if err != nil || a.Install() != want {
			t.Errorf("%s: %q, %v", in, a.Install(), err)
		}
	}
}
