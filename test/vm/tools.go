package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// ErrMissing is in the chain of every error that an apt line would repair.
var ErrMissing = errors.New("not installed")

// packageOf names the Debian and Ubuntu package of each program used here.
var packageOf = map[string]string{
	"apt-cache": "apt", "apt-get": "apt", "busybox": "busybox-static", "depmod": "kmod",
	"dpkg-deb": "dpkg", "qemu-system-aarch64": "qemu-system-arm", "qemu-system-x86_64": "qemu-system-x86",
	"gzip": "gzip", "tar": "tar", "xz": "xz-utils", "zstd": "zstd",
}

// Require reports, as one error that names the apt line, which of the
// programs that booting a guest needs are missing.
func Require() error {
	return requireTools("apt-get", "apt-cache", "dpkg-deb", "tar", "depmod", "busybox", qemuBinary())
}

func requireTools(tools ...string) error {
	var packages []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			packages = append(packages, packageOf[tool])
		}
	}
	if len(packages) == 0 {
		return nil
	}
	slices.Sort(packages)
	list := strings.Join(slices.Compact(packages), " ")
	return fmt.Errorf("%s: %w; run: apt-get install %s", list, ErrMissing, list)
}

func qemuBinary() string {
	if runtime.GOARCH == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// output runs a program and returns its standard output; what it wrote to
// standard error is in the error.
func output(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	return stdout.String(), nil
}
