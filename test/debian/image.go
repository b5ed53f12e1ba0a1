package debian

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/test/vm"
)

// Suite is the Debian release of systems that do not say another.
const Suite = "bookworm"

// base is what every system has: a kernel with all modules, an init, and what those need.
var base = []string{"linux-image-" + runtime.GOARCH, "systemd-sysv", "udev", "dbus", "kmod", "iproute2"}

// System says what a system consists of.
type System struct {
	// Suite is the release; empty for Suite.
	Suite string
	// Packages are those beside the base.
	Packages []string
	// Setup is a shell script that runs in the new system before it is first booted.
	Setup string
	// Size of its disk in MiB.
	Size int
}

// excluded paths make the disk smaller and the system no different.
var excluded = []string{"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/i18n/*"}

// common prepares every system: a root file system to write to, a shell on the port behind [vm.VM.Run], no timers that
// would want the internet, no login prompts.
const common = `set -eu
echo '/dev/vda / ext4 defaults 0 1' >/etc/fstab
: >/etc/machine-id
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
cat >/etc/systemd/system/test-shell.service <<'EOT'
[Service]
ExecStart=/bin/sh -c 'sh 0<>/dev/virtio-ports/` + vm.ShellPort + ` 1>&0 2>&1'
Restart=always
RestartSec=200ms
StartLimitIntervalSec=0
[Install]
WantedBy=multi-user.target
EOT
systemctl enable test-shell.service
systemctl mask apt-daily.timer apt-daily-upgrade.timer getty@.service serial-getty@.service
`

// Image is a built system: the paths of its disk and of what boots it.
type Image struct {
	Disk, Kernel, Initrd string
}

// Config is a guest that boots the image and forgets what it wrote when it ends.
func (i Image) Config() vm.Config {
	console := "ttyS0"
	if runtime.GOARCH == "arm64" {
		console = "ttyAMA0"
	}
	return vm.Config{
		Boot:  &vm.Boot{Kernel: i.Kernel, Initrd: i.Initrd, Append: "root=/dev/vda rw quiet console=" + console},
		Disks: []vm.Disk{{Path: i.Disk, Snapshot: true}},
	}
}

// Fetch returns the system's image from the cache, or builds it. progress receives what the build says.
func (s System) Fetch(ctx context.Context, progress io.Writer) (Image, error) {
	cache, err := vm.CacheDir()
	if err != nil {
		return Image{}, err
	}
	suite := cmp.Or(s.Suite, Suite)
	key := sha256.Sum256(fmt.Append(nil, suite, base, s.Packages, excluded, common, s.Setup, s.Size))
	dir := filepath.Join(cache, fmt.Sprintf("system-%s-%x", suite, key[:8]))
	image := Image{filepath.Join(dir, "disk.img"), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd.img")}

	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return image, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return image, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return image, nil
	}
	if err := buildable(); err != nil {
		return image, err
	}
	work, err := os.MkdirTemp(cache, "system-new-")
	if err != nil {
		return image, err
	}
	defer os.RemoveAll(work)
	if err := s.build(ctx, work, progress); err != nil {
		return image, fmt.Errorf("build a Debian system: %w", err)
	}
	return image, os.Rename(filepath.Join(work, "out"), dir)
}

func buildable() error {
	if os.Geteuid() != 0 {
		return errors.New("building a Debian system takes root")
	}
	for program, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: run: apt-get install %s", err, pkg)
		}
	}
	return nil
}

func (s System) build(ctx context.Context, work string, progress io.Writer) error {
	root, out := filepath.Join(work, "root"), filepath.Join(work, "out")
	run := func(name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdout, cmd.Stderr = progress, progress
		// What is mounted in the root goes with the program, also when that is killed.
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	args := []string{"--quiet", "--variant=minbase", "--include=" + strings.Join(append(base, s.Packages...), ",")}
	for _, path := range excluded {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	if err := run("mmdebstrap", append(args, cmp.Or(s.Suite, Suite), root)...); err != nil {
		return err
	}
	if err := run("chroot", root, "/bin/sh", "-c", common+s.Setup); err != nil {
		return err
	}
	if err := os.Mkdir(out, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"vmlinuz", "initrd.img"} {
		found, _ := filepath.Glob(filepath.Join(root, "boot", name+"-*")) // the pattern is ours
		if len(found) != 1 {
			return fmt.Errorf("%d files /boot/%s-*, want one", len(found), name)
		}
		if err := os.Rename(found[0], filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return run("mke2fs", "-q", "-t", "ext4", "-d", root, filepath.Join(out, "disk.img"), fmt.Sprintf("%dM", s.Size))
}
