package cloudinit_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/test/sysroot"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

func TestSeedInstallsOnceAndUpgrades(t *testing.T) {
	g := systemdGuest(t)
	s := newSeed(t)
	calls := g.boot(s)
	wantCalls(t, calls, "systemctl daemon-reload", "systemctl --quiet enable rum-guest-agent.service",
		"systemctl --no-block restart rum-guest-agent.service")
	if !strings.HasPrefix(calls[0], "mount -o ro,nosuid,nodev,noexec /seed /run/rum-agent.") {
		t.Errorf("the seed was mounted by %q", calls[0])
	}
	g.installed(s, unit)

	if calls := g.boot(s); len(calls) != 0 {
		t.Errorf("the second boot did %q", calls)
	}

	g.Write("local/bin/rum-guest-agent", "by hand", 0o755)
	if calls := g.boot(s); len(calls) != 0 || g.Read("local/bin/rum-guest-agent") != "by hand" {
		t.Errorf("an agent put there by hand did not stay: %q", calls)
	}

	s.Agents[1].Binary = []byte("newer")
	wantCalls(t, g.boot(s), "systemctl daemon-reload", "systemctl --quiet enable rum-guest-agent.service",
		"systemctl --no-block restart rum-guest-agent.service")
	g.installed(s, unit)

	if err := os.Remove(filepath.Join(g.Dir, "etc/rum-agent/key")); err != nil {
		t.Fatal(err)
	}
	g.boot(s)
	g.installed(s, unit)
}

func TestInterruptedInstallationIsFinishedAtTheNextBoot(t *testing.T) {
	g := systemdGuest(t)
	s := newSeed(t)
	g.Write("local/sbin/systemctl", "#!/bin/sh\nexit 1\n", 0o755)
	g.attach("seed", extract(t, s))
	script := boothook(t, documents(t, s).VendorData)
	if _, _, err := g.Run(t.Context(), script); err == nil {
		t.Fatal("the script did not say that systemctl failed")
	}
	g.Write("local/sbin/systemctl", sysroot.Recorder, 0o755)
	wantCalls(t, g.mustRun(script), "systemctl daemon-reload", "systemctl --quiet enable rum-guest-agent.service",
		"systemctl --no-block restart rum-guest-agent.service")
	g.installed(s, unit)
}

func TestSeedIsFoundAmongOthersByItsKey(t *testing.T) {
	g := systemdGuest(t)
	other := newSeed(t)
	other.Key = keyfile.New()
	g.attach("decoy", extract(t, other))
	s := newSeed(t)
	g.boot(s)
	g.installed(s, unit)

	// Without a volume: where an image builder copied the seed to.
	g = systemdGuest(t)
	if err := os.MkdirAll(filepath.Join(g.Dir, "var/lib/cloud/seed"), 0o755); err != nil {
		t.Fatal(err)
	}
	g.attach("decoy", extract(t, other))
	g.attach("var/lib/cloud/seed/nocloud", extract(t, s))
	g.mustRun(boothook(t, documents(t, s).VendorData))
	g.installed(s, unit)
}

func TestFailedInstallationSaysWhyAndChangesNothing(t *testing.T) {
	s := newSeed(t)
	tree := extract(t, s)
	script := boothook(t, documents(t, s).VendorData)
	payload, err := s.Installer()
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		prepare func(*guest)
		script  []byte
		want    string
	}{
		"no seed":   {func(*guest) {}, script, "no CIDATA volume carries this agent"},
		"other CPU": {func(g *guest) { g.Write("processor", "riscv64\n", 0o644) }, script, "no agent for riscv64 here, only for: amd64 arm64"},
		"damaged": {func(g *guest) {
			g.attach("seed", tree)
			g.Write("seed/rum-agent/rum-guest-agent-linux-amd64", "damaged", 0o755)
		}, script, "rum-guest-agent-linux-amd64 is damaged in the seed"},
		"incomplete": {func(g *guest) {
			g.attach("seed", tree)
			os.Remove(filepath.Join(g.Dir, "seed/rum-agent/rum-guest-agent-linux-amd64"))
		}, script, "the seed has no rum-guest-agent-linux-amd64"},
		"cut payload": {func(*guest) {}, payload[:len(payload)-60], "the files at the end of /script are damaged"},
	} {
		g := systemdGuest(t)
		row.prepare(g)
		out, calls, err := g.Run(t.Context(), row.script)
		if err == nil || !strings.Contains(out, "rum-guest-agent: "+row.want) {
			t.Errorf("%s: error %v, output %s", name, err, out)
		}
		wantCalls(t, calls)
		if g.Read("local/bin/rum-guest-agent") != "" || g.Read("etc/rum-agent/key") != "" || g.Read("var/lib/rum-agent/applied") != "" {
			t.Errorf("%s: something was installed", name)
		}
		if left, _ := filepath.Glob(filepath.Join(g.Dir, "run/rum-agent*")); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
	g := &guest{sysroot.New(t, "x86_64"), t}
	g.attach("seed", tree)
	if out, _, err := g.Run(t.Context(), script); err == nil || !strings.Contains(out, "neither systemd nor OpenRC runs here") {
		t.Errorf("no service manager: error %v, output %s", err, out)
	}
}

func TestSeedInstallsWithBusyboxAndOpenRC(t *testing.T) {
	g := openrcGuest(t)
	s := newSeed(t)
	wantCalls(t, g.boot(s), "rc-update --quiet add rum-guest-agent boot", "rc-service rum-guest-agent restart")
	g.installed(s, "etc/init.d/rum-guest-agent")
	if calls := g.boot(s); len(calls) != 0 {
		t.Errorf("the second boot did %q", calls)
	}
}

func TestUserDataOnlyInstallsFromItself(t *testing.T) {
	for name, g := range map[string]*guest{"systemd": systemdGuest(t), "busybox": openrcGuest(t)} {
		s := newSeed(t)
		s.Agents[1].Binary = append([]byte("#!/bin/sh\nexit\n"), bytes.Repeat([]byte("some megabytes\n"), 200_000)...)
		doc, err := s.UserDataOnly()
		if err != nil {
			t.Fatal(err)
		}
		hook := parts(t, doc)[0].body
		g.mustRun(hook)
		service := unit
		if name == "busybox" {
			service = "etc/init.d/rum-guest-agent"
		}
		g.installed(s, service)
		if calls := g.mustRun(hook); len(calls) != 0 {
			t.Errorf("%s: the second boot did %q", name, calls)
		}
	}
}

func TestInstallerRunsAsOftenAsOneLikes(t *testing.T) {
	g := systemdGuest(t)
	s := newSeed(t)
	g.boot(s)
	byHand := newSeed(t)
	byHand.Agents[1].Binary = []byte("#!/bin/sh\necho \"newer $*\"\n")
	script, err := byHand.Installer()
	if err != nil {
		t.Fatal(err)
	}
	reload := []string{"systemctl daemon-reload", "systemctl --quiet enable rum-guest-agent.service"}
	run := func(said string, want ...string) {
		t.Helper()
		out, calls, err := g.Run(t.Context(), script)
		if err != nil || !strings.HasSuffix(out, "newer --version\n"+said+"\n") {
			t.Errorf("error %v, output %s", err, out)
		}
		wantCalls(t, calls, want...)
	}
	run("installed, and started", append(reload, "systemctl restart rum-guest-agent.service")...)
	run("nothing to do: it is here already, with this key, and runs")
	for _, state := range []string{"active", "enabled"} {
		if err := os.Remove(filepath.Join(g.Dir, state)); err != nil {
			t.Fatal(err)
		}
		run("installed, and started", append(reload, "systemctl start rum-guest-agent.service")...)
	}
	g.installed(byHand, unit)

	if calls := g.boot(s); len(calls) != 0 {
		t.Errorf("the next boot undid it: %q", calls)
	}
	g.installed(byHand, unit)
}

// hostsBlock are the lines around what the agent keeps in /etc/hosts, as its source has them.
func hostsBlock(t *testing.T) (begin, end string) {
	t.Helper()
	source, err := os.ReadFile("../agent-guest/hostsfile.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`hosts(?:Begin|End) *= "(.*)"`).FindAllSubmatch(source, 2)
	if len(found) != 2 {
		t.Fatalf("the agent's source has %q", found)
	}
	return string(found[0][1]), string(found[1][1])
}

func TestUninstallerLeavesNothing(t *testing.T) {
	seed := newSeed(t)
	script, err := seed.Installer()
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		guest *guest
		bring func(*guest)
		calls []string
		said  string
	}{
		"systemd": {systemdGuest(t), func(g *guest) { g.mustRun(script) }, []string{"systemctl --quiet disable --now rum-guest-agent.service", "systemctl daemon-reload"}, ""},
		"openrc":  {openrcGuest(t), func(g *guest) { g.mustRun(script) }, []string{"rc-service rum-guest-agent --ifstarted stop"}, ""},
		"seed": {systemdGuest(t), func(g *guest) { g.boot(seed) }, []string{"systemctl --quiet disable --now rum-guest-agent.service", "systemctl daemon-reload"},
			"a seed image brought it: while the VM has that, the next boot installs it again\n"},
	} {
		g := row.guest
		row.bring(g)
		out, calls, err := g.Run(t.Context(), cloudinit.Uninstaller())
		if want := "rum-guest-agent is removed, with its key and its service\n" + row.said; err != nil || out != want {
			t.Errorf("%s: error %v, output %s", name, err, out)
		}
		wantCalls(t, calls, row.calls...)
		for _, gone := range []string{"local/bin/rum-guest-agent", "local/bin/rum-open", "etc/profile.d/rum-open.sh", unit, "etc/init.d/rum-guest-agent", "etc/rum-agent", "var/lib/rum-agent"} {
			if _, err := os.Stat(filepath.Join(g.Dir, gone)); !os.IsNotExist(err) {
				t.Errorf("%s: %s is still there: %v", name, gone, err)
			}
		}
		out, calls, err = g.Run(t.Context(), cloudinit.Uninstaller())
		if err != nil || out != "nothing to do: rum-guest-agent is not here\n" {
			t.Errorf("%s once more: error %v, output %s", name, err, out)
		}
		wantCalls(t, calls)
	}
	g := systemdGuest(t)
	g.mustRun(script)
	begin, end := hostsBlock(t)
	g.Write("etc/rum-agent/mine", "", 0o600)
	for _, newline := range []string{"\n", " \t\n", "\r\n"} {
		block := strings.Join([]string{begin, "192.0.2.1 host.rum.internal", end, ""}, newline)
		g.Write("etc/hosts", "127.0.0.1 localhost\n"+block+"192.0.2.3 host.rum.internal\n"+strings.Replace(block, end, "192.0.2.2 mine\n"+end, 1), 0o640)
		if out, _, err := g.Run(t.Context(), cloudinit.Uninstaller()); err != nil || !strings.HasPrefix(out, "/etc/rum-agent has more in it and stays\n") {
			t.Errorf("with a file of the user's: error %v, output %s", err, out)
		}
		if got := g.Read("etc/hosts"); got != "127.0.0.1 localhost\n192.0.2.3 host.rum.internal\n192.0.2.2 mine\n" {
			t.Errorf("lines that end in %q: /etc/hosts is\n%s", newline, got)
		}
	}
}

// TestUnderOpenRCTheServiceOfThePackageIsThereWhenAHostsAgentIsRemoved: there is one script for both.
func TestUnderOpenRCTheServiceOfThePackageIsThereWhenAHostsAgentIsRemoved(t *testing.T) {
	const packages, service = "#!/sbin/openrc-run\ncommand=/usr/bin/rum-guest-agent\n", "etc/init.d/rum-guest-agent"
	script, err := newSeed(t).Installer()
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		bring func(*guest)
		said  string
		calls []string
	}{
		"the package alone": {func(*guest) {}, "", nil},
		"and a host's": {func(g *guest) { g.mustRun(script) }, "the rum-guest-agent that a host installed is removed\n",
			[]string{"rc-service rum-guest-agent --ifstarted stop", "rc-update --quiet add rum-guest-agent boot", "rc-service rum-guest-agent start"}},
	} {
		g := openrcGuest(t)
		for _, dir := range []string{"usr/bin", "usr/lib/rum-agent", "etc/rum-agent"} {
			if err := os.MkdirAll(filepath.Join(g.Dir, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		g.Write("usr/bin/rum-guest-agent", "", 0o755)
		g.Write("usr/lib/rum-agent/rum-guest-agent.openrc", packages, 0o644)
		g.Write(service, packages, 0o755)
		g.Write("etc/rum-agent/key", "", 0o600)
		row.bring(g)
		out, calls, err := g.Run(t.Context(), cloudinit.Uninstaller())
		if err != nil || !strings.HasPrefix(out, row.said+"the package rum-guest-agent stays") {
			t.Errorf("%s: error %v, output %s", name, err, out)
		}
		wantCalls(t, calls, row.calls...)
		if got := g.Read(service); got != packages {
			t.Errorf("%s: the service is %q", name, got)
		}
	}
}

// A disk without room is as full afterwards as before, and what an installation left that was killed goes.
func TestAFailedInstallationLeavesNoPartsOfFiles(t *testing.T) {
	s := newSeed(t)
	script, err := s.Installer()
	if err != nil {
		t.Fatal(err)
	}
	g := systemdGuest(t)
	g.Write("local/sbin/cp", "#!/bin/sh\n/bin/cp \"$@\"\necho no room >&2\nexit 1\n", 0o755)
	left := func() []string {
		all, _ := filepath.Glob(filepath.Join(g.Dir, "local/bin/*"))
		return all
	}
	const killed = "local/bin/rum-guest-agent.new.999999999"
	g.Write(killed, "part", 0o600)
	if out, _, err := g.Run(t.Context(), script); err == nil || !strings.Contains(out, "no room") {
		t.Errorf("error %v, output %s", err, out)
	}
	if all := left(); len(all) > 0 {
		t.Errorf("left behind: %v", all)
	}
	g.Write(killed, "part", 0o600)
	if out, _, err := g.Run(t.Context(), cloudinit.Uninstaller()); err != nil || !strings.Contains(out, "removed") {
		t.Errorf("error %v, output %s", err, out)
	}
	if all := left(); len(all) > 0 {
		t.Errorf("left behind by uninstall: %v", all)
	}
}

// TestAGuestInWhichTheAgentCannotBeIsLeftAsItWas has guests whose places are full, closed, or something else, and says of each which.
func TestAGuestInWhichTheAgentCannotBeIsLeftAsItWas(t *testing.T) {
	script, err := newSeed(t).Installer()
	if err != nil {
		t.Fatal(err)
	}
	const mount, full = "/machine/bin/mount ", " && ! /machine/bin/yes 2>/dev/null | /machine/bin/head -c 1M 2>/dev/null >"
	small := func(dir, size string) string {
		return "/machine/bin/mkdir -p " + dir + "; " + mount + "-t tmpfs -o size=" + size + " tmpfs " + dir
	}
	for name, row := range map[string]struct{ before, want string }{
		"no room in /run":             {small("/run", "16k") + "; /machine/bin/mkdir -p /run/systemd/system" + full + "/run/others", "cannot unpack the agent: /run has to be"},
		"no room for the directory":   {small("/run", "64k,nr_inodes=3") + "; /machine/bin/mkdir -p /run/systemd/system", "cannot unpack the agent: /run has to be"},
		"/usr is read-only":           {mount + "-o remount,bind,ro /usr/local/bin", "cannot write /usr/local/bin/rum-guest-agent: /usr/local/bin has to be a directory that is writable"},
		"programs may not run":        {mount + "-o remount,bind,noexec /usr/local/bin", "programs in /usr/local/bin are not allowed to run: mount its file system without noexec"},
		"no room for the key":         {small("/etc/rum-agent", "4k") + full + "/etc/rum-agent/others", "cannot write /etc/rum-agent/key: /etc/rum-agent has to be"},
		"no room for the unit":        {small("/etc/systemd/system", "4k") + full + "/etc/systemd/system/others", "cannot write /etc/systemd/system/rum-guest-agent.service: /etc/systemd/system has to be"},
		"no room for what is kept":    {small("/var/lib/rum-agent", "4k,nr_inodes=1"), "cannot write /var/lib/rum-agent/unfinished: /var/lib/rum-agent has to be"},
		"a directory is in its place": {"/machine/bin/mkdir /usr/local/bin/rum-guest-agent", "/usr/local/bin/rum-guest-agent is a directory, where a file"},
		"a file is where /etc has to": {"/machine/bin/touch /etc/rum-agent", "cannot write /etc/rum-agent/key: /etc/rum-agent has to be a directory"},
		"a directory for the profile": {"/machine/bin/mkdir -p /etc/profile.d/rum-open.sh", "/etc/profile.d/rum-open.sh is a directory"},
	} {
		for kind, g := range map[string]*guest{"": systemdGuest(t), " of busybox": openrcGuest(t)} {
			if kind != "" && strings.Contains(row.before, "systemd/system") {
				continue
			}
			out, calls, err := g.Run(t.Context(), append([]byte("#!/bin/sh\n"+row.before+"\n"), script...))
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if err == nil || !strings.HasPrefix(lines[len(lines)-1], "rum-guest-agent: "+row.want) {
				t.Errorf("%s%s: error %v, output %s", name, kind, err, out)
			}
			wantCalls(t, calls)
			for _, pattern := range []string{"local/bin/*", "etc/rum-agent/*", "etc/systemd/system/*", "etc/init.d/*", "var/lib/rum-agent/*", "run/rum-agent*"} {
				left, _ := filepath.Glob(filepath.Join(g.Dir, pattern))
				left = slices.DeleteFunc(left, func(file string) bool { info, err := os.Stat(file); return err == nil && info.IsDir() })
				if len(left) > 0 {
					t.Errorf("%s%s: it leaves %v", name, kind, left)
				}
			}
		}
	}
}

func TestInstallerSaysWhenTheGuestHasTheKey(t *testing.T) {
	s := newSeed(t)
	script, err := s.Installer()
	if err != nil {
		t.Fatal(err)
	}
	for name, g := range map[string]*guest{"systemd": systemdGuest(t), "busybox": openrcGuest(t), "no service manager": {sysroot.New(t, "x86_64"), t}} {
		out, _, _ := g.Run(t.Context(), script)
		if !strings.Contains(out, cloudinit.KeyInPlace) || g.Read("etc/rum-agent/key") != string(s.Key.Encode()) {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// TestTheScriptsWorkInEveryShell has what is /bin/sh in one distribution or another: dash in Debian and Ubuntu, bash in
// Fedora, busybox in Alpine, mksh elsewhere.
func TestTheScriptsWorkInEveryShell(t *testing.T) {
	busybox := tool(t, "busybox", "busybox-static")
	for name, at := range map[string]string{"dash": tool(t, "dash", "dash"), "bash": tool(t, "bash", "bash"), "mksh": tool(t, "mksh", "mksh"), "busybox": busybox} {
		t.Run(name, func(t *testing.T) {
			g := systemdGuest(t)
			g.Shell = "/usr/local/sbin/sh"
			if err := os.Symlink(at, filepath.Join(g.Dir, "local/sbin/sh")); err != nil {
				t.Fatal(err)
			}
			s := newSeed(t)
			g.boot(s)
			g.installed(s, unit)
			if calls := g.boot(s); len(calls) != 0 {
				t.Errorf("the second boot did %q", calls)
			}
			s.Agents[1].Binary = []byte("#!/bin/sh\necho \"newer $*\"\n")
			script, err := s.Installer()
			if err != nil {
				t.Fatal(err)
			}
			g.mustRun(script)
			g.installed(s, unit)
			if out, _, err := g.Run(t.Context(), cloudinit.Uninstaller()); err != nil || !strings.Contains(out, "rum-guest-agent is removed") || g.Read("etc/rum-agent/key") != "" {
				t.Errorf("uninstall: %v, %s", err, out)
			}
		})
	}
}

func TestAToolThatTheGuestLacksIsNamedAndNothingIsInstalled(t *testing.T) {
	s := newSeed(t)
	script, err := s.Installer()
	if err != nil {
		t.Fatal(err)
	}
	tree, hook := extract(t, s), boothook(t, documents(t, s).VendorData)
	programs, lacks := make(map[string]string), map[string][]byte{"blkid": hook, "mount": hook, "umount": hook, "uname": script}
	for _, name := range needed {
		programs[name] = tool(t, name, "coreutils, grep, gzip, sed or tar")
		if !slices.Contains([]string{"sh", "grep", "rmdir"}, name) { // the shell, and what uninstalls
			lacks[name] = script
		}
	}
	for name, script := range lacks {
		g := &guest{sysroot.Bare(t, "x86_64", programs), t}
		g.Shell = "/usr/local/sbin/sh"
		g.attach("seed", tree)
		if err := os.Remove(filepath.Join(g.Dir, "local/sbin", name)); err != nil {
			t.Fatal(err)
		}
		out, calls, err := g.Run(t.Context(), script)
		if want := "rum-guest-agent: " + name + " is missing here: install it, and run this again\n"; err == nil || out != want {
			t.Errorf("without %s: error %v, output %s", name, err, out)
		}
		wantCalls(t, calls)
		if g.Read("local/bin/rum-guest-agent") != "" || g.Read("etc/rum-agent/key") != "" {
			t.Errorf("without %s: something was installed", name)
		}
	}
	for _, name := range []string{"grep", "id", "rm", "rmdir", "sed"} {
		g := &guest{sysroot.Bare(t, "x86_64", programs), t}
		g.Shell = "/usr/local/sbin/sh"
		if err := os.Remove(filepath.Join(g.Dir, "local/sbin", name)); err != nil {
			t.Fatal(err)
		}
		out, calls, err := g.Run(t.Context(), cloudinit.Uninstaller())
		if want := "rum-guest-agent: " + name + " is missing here: install it, and run this again\n"; err == nil || out != want {
			t.Errorf("uninstall without %s: error %v, output %s", name, err, out)
		}
		wantCalls(t, calls)
	}
}

func TestScriptParsesInEveryShell(t *testing.T) {
	s := newSeed(t)
	script, err := s.Installer()
	if err != nil {
		t.Fatal(err)
	}
	for _, shell := range [][]string{{"sh", "-n"}, {"bash", "-n"}, {tool(t, "busybox", "busybox"), "sh", "-n"}} {
		for _, text := range [][]byte{script, cloudinit.Uninstaller()} {
			cmd := exec.Command(shell[0], shell[1:]...)
			cmd.Stdin = bytes.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", shell[0], err, out)
			}
		}
	}
}

// TestProgramsOfTheVMOpenPagesByTheShimUnlessTheUserHasABrowser evaluates what login shells do.
func TestProgramsOfTheVMOpenPagesByTheShimUnlessTheUserHasABrowser(t *testing.T) {
	script, err := newSeed(t).Installer()
	if err != nil {
		t.Fatal(err)
	}
	g := systemdGuest(t)
	if err := os.MkdirAll(filepath.Join(g.Dir, "etc/profile.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	g.mustRun(script)
	if info, err := os.Stat(filepath.Join(g.Dir, "local/bin/rum-open")); err != nil || info.Mode() != 0o755 {
		t.Errorf("the shim: %v (%v)", info, err)
	}
	for env, want := range map[string]string{"A=1": "/usr/local/bin/rum-open", "BROWSER=firefox": "firefox", "DISPLAY=:0": "", "WAYLAND_DISPLAY=wayland-0": "",
		"A=2 /machine/bin/mv /usr/local/bin/rum-open /tmp": ""} {
		variable, before, _ := strings.Cut(env, " ")
		login := "set -eu; unset BROWSER DISPLAY WAYLAND_DISPLAY; export " + variable + "\n" + before + "\n. /etc/profile.d/rum-open.sh\nprintf %s \"${BROWSER-}\"\n"
		if out, _, err := g.Run(t.Context(), []byte(login)); err != nil || out != want {
			t.Errorf("with %s: %q (%v), want %q", env, out, err, want)
		}
		if before != "" {
			g.mustRun(script)
		}
	}
}
