//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/test/vm"
)

// suite is the Debian release that is booted.
const suite = "bookworm"

// packages are what the image has beyond Debian's minimum; netplan.io renders the network as in Debian's own cloud image.
var packages = []string{
	"linux-image-cloud-" + runtime.GOARCH, "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "sudo", "openssh-server", "cloud-init", "netplan.io",
}

// excluded paths make the image smaller and the boot no different.
var excluded = []string{"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"}

// configure prepares the unpacked system: a root shell on the test's port, no timers that would want the internet.
const configure = `set -eu
echo '/dev/vda / ext4 defaults 0 1' >/etc/fstab
: >/etc/machine-id
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
cat >/etc/systemd/system/rum-test-shell.service <<'EOT'
[Unit]
Description=The test's shell
[Service]
ExecStart=/bin/sh -c 'sh 0<>/dev/virtio-ports/rum.test.shell 1>&0 2>&1'
Restart=always
RestartSec=200ms
StartLimitIntervalSec=0
[Install]
WantedBy=multi-user.target
EOT
# No time goes into locales and into keys of old kinds.
cat >/etc/cloud/cloud.cfg.d/90-test.cfg <<'EOT'
locale: C.UTF-8
ssh_genkeytypes: [ed25519]
EOT
systemctl enable systemd-networkd.service rum-test-shell.service
systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service getty@.service serial-getty@.service
`

// image is a bootable Debian: a kernel, its initramfs and a disk.
type image struct{ dir string }

func (i image) boot() *vm.Boot {
	console := map[string]string{"amd64": "ttyS0", "arm64": "ttyAMA0"}[runtime.GOARCH]
	return &vm.Boot{
		Kernel: filepath.Join(i.dir, "vmlinuz"), Initrd: filepath.Join(i.dir, "initrd.img"),
		Append: "root=/dev/vda rw quiet console=" + console,
	}
}

// disk makes a copy of the system's disk that a guest can write to.
func (i image) disk(path string) error {
	return command(context.Background(), "cp", "--sparse=always", "--reflink=auto", filepath.Join(i.dir, "disk.img"), path)
}

// fetchImage returns the image of these packages, and builds it when the cache does not have it.
func fetchImage(ctx context.Context) (image, error) {
	cache, err := vm.CacheDir()
	if err != nil {
		return image{}, err
	}
	key := sha256.Sum256(fmt.Append(nil, suite, packages, excluded, configure))
	dir := filepath.Join(cache, fmt.Sprintf("debian-%s-%s", suite, hex.EncodeToString(key[:8])))

	lock, err := os.OpenFile(filepath.Join(cache, "debian.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return image{}, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return image{}, err
	}
	if _, err := os.Stat(dir); err == nil {
		return image{dir}, nil
	}
	if os.Geteuid() != 0 {
		return image{}, errors.New("building a Debian image takes root: sudo make e2e")
	}
	work, err := os.MkdirTemp(cache, "debian-new-")
	if err != nil {
		return image{}, err
	}
	defer os.RemoveAll(work)
	if err := buildImage(ctx, work); err != nil {
		return image{}, fmt.Errorf("build the Debian image: %w", err)
	}
	return image{dir}, os.Rename(filepath.Join(work, "out"), dir)
}

func buildImage(ctx context.Context, work string) error {
	root, out := filepath.Join(work, "root"), filepath.Join(work, "out")
	args := []string{"--quiet", "--variant=minbase", "--include=" + strings.Join(packages, ",")}
	for _, path := range excluded {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	if err := command(ctx, "mmdebstrap", append(args, suite, root)...); err != nil {
		return err
	}
	if err := command(ctx, "chroot", root, "/bin/sh", "-c", configure); err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o700); err != nil {
		return err
	}
	for pattern, name := range map[string]string{"vmlinuz-*": "vmlinuz", "initrd.img-*": "initrd.img"} {
		found, _ := filepath.Glob(filepath.Join(root, "boot", pattern))
		if len(found) != 1 {
			return fmt.Errorf("%d files /boot/%s", len(found), pattern)
		}
		if err := os.Rename(found[0], filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return command(ctx, "mke2fs", "-q", "-t", "ext4", "-d", root, filepath.Join(out, "disk.img"), "1500M")
}

// command runs a program; what it says becomes part of the error.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
