package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// debianPackage says where each program comes from.
var debianPackage = map[string]string{
	"cc":         "gcc libc6-dev",
	"iperf3":     "iperf3",
	"nsenter":    "util-linux",
	"socat":      "socat",
	"ssh":        "openssh-client",
	"ssh-keygen": "openssh-client",
	"sshd":       "openssh-server",
	"unshare":    "util-linux",
}

// checkTools reports every missing program at once, with the command that brings it.
func checkTools(o options) error {
	needed := []string{"iperf3", "nsenter"}
	var ours []string
	for _, r := range selectRelays(o) {
		needed = append(needed, r.tools...)
		ours = append(ours, r.binaries...)
	}
	slices.Sort(needed)
	var missing, packages []string
	for _, tool := range slices.Compact(needed) {
		if _, err := findTool(tool); err != nil {
			missing = append(missing, tool)
			packages = append(packages, debianPackage[tool])
		}
	}
	if len(missing) > 0 {
		slices.Sort(packages)
		return fmt.Errorf("%s: not found\n  apt-get install -y %s", strings.Join(missing, ", "), strings.Join(slices.Compact(packages), " "))
	}
	for _, name := range ours {
		if _, err := os.Stat(filepath.Join(o.bin, name)); err != nil {
			return fmt.Errorf("%s is not built: %w\n  make bench builds it", name, err)
		}
	}
	return nil
}

// findTool also looks where the system's daemons are, which is not on every user's PATH.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	return exec.LookPath(filepath.Join("/usr/sbin", name))
}

// machine says what the numbers were measured on.
type machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Kernel   string            `json:"kernel"`
	Versions map[string]string `json:"versions"`
	Load     float64           `json:"load_at_start"` // one-minute load average
}

func describeMachine() machine {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), Versions: map[string]string{"go": runtime.Version()}}
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 {
			m.CPU = cpus[0].ModelName
		}
		if load, err := fs.LoadAvg(); err == nil {
			m.Load = load.Load1
		}
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Machine[:])
	}
	for _, v := range []struct{ tool, flag, prefix string }{
		{"iperf3", "--version", "iperf "}, {"ssh", "-V", "OpenSSH_"}, {"socat", "-V", "socat version "},
		{"nginx", "-v", "nginx version: nginx/"},
	} {
		// Some print their version on standard error, or with a failing exit code.
		path, err := findTool(v.tool)
		if err != nil {
			continue
		}
		out, _ := exec.Command(path, v.flag).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if rest, ok := strings.CutPrefix(line, v.prefix); ok {
				version, _, _ := strings.Cut(rest, " ")
				m.Versions[v.tool] = strings.Trim(version, ",\n")
				break
			}
		}
	}
	if _, found := m.Versions["nginx"]; !found {
		m.Versions["nginx"] = "none: a web server in Go instead"
	}
	return m
}
