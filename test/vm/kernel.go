package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// Kernel is a distribution kernel unpacked in the cache.
type Kernel struct {
	// Release is what uname -r prints in a guest that runs it.
	Release string
	// Image is the path of the bootable image.
	Image string
	// Modules is the directory with modules.dep and the modules.
	Modules string
}

// CacheDir is where kernels and other large test inputs are kept between
// runs: $XDG_CACHE_HOME/rum-agent, by default ~/.cache/rum-agent.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	dir := filepath.Join(base, "rum-agent")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	return dir, nil
}

// FetchKernel returns the distribution's current kernel, downloading its
// package with apt when this version of it is not in the cache. Nothing is
// installed. progress, which may be nil, receives apt's output.
func FetchKernel(ctx context.Context, progress io.Writer) (*Kernel, error) {
	if err := requireTools("apt-get", "apt-cache", "dpkg-deb", "tar", "depmod"); err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	image, version, err := currentKernel(ctx)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(cache, image+"_"+version+"_"+runtime.GOARCH)

	// Test binaries of several packages may want the same kernel at once.
	unlock, err := lockFile(filepath.Join(cache, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := openKernel(root); err == nil {
		return k, nil
	}
	pkgs, err := withModules(ctx, image)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return nil, fmt.Errorf("unpack the kernel: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := unpackKernel(ctx, tmp, pkgs, progress); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(root); err != nil {
		return nil, fmt.Errorf("replace an incomplete kernel: %w", err)
	}
	if err := os.Rename(filepath.Join(tmp, "root"), root); err != nil {
		return nil, fmt.Errorf("keep the kernel: %w", err)
	}
	return openKernel(root)
}

// currentKernel resolves the distribution's kernel metapackage to the package
// with the image, and a version that changes whenever that does.
func currentKernel(ctx context.Context) (image, version string, err error) {
	// Debian names it after the architecture, Ubuntu calls it generic.
	metas := []string{"linux-image-" + runtime.GOARCH, "linux-image-generic"}
	for _, meta := range metas {
		fields, err := aptShow(ctx, meta)
		if err != nil {
			continue // most likely the other distribution's
		}
		deps := dependencies(fields)
		if i := slices.IndexFunc(deps, isImage); i >= 0 {
			return deps[i], fields["Version"], nil
		}
	}
	return "", "", fmt.Errorf("apt knows no kernel package (%s); run: apt-get update", strings.Join(metas, ", "))
}

func isImage(pkg string) bool { return strings.HasPrefix(pkg, "linux-image-") }

// withModules returns the image's package and, where they are packages of
// their own, those with the modules.
func withModules(ctx context.Context, image string) ([]string, error) {
	fields, err := aptShow(ctx, image)
	if err != nil {
		return nil, err
	}
	pkgs := []string{image}
	for _, dep := range dependencies(fields) {
		if strings.HasPrefix(dep, "linux-modules-") {
			pkgs = append(pkgs, dep)
		}
	}
	return pkgs, nil
}

// aptShow returns the fields of the version of a package that apt would take.
func aptShow(ctx context.Context, pkg string) (map[string]string, error) {
	out, err := output(ctx, "apt-cache", "show", "--no-all-versions", pkg)
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(line, ": "); ok {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields, nil
}

// dependencies returns the names in the Depends field, each without its
// version and alternatives.
func dependencies(fields map[string]string) []string {
	var names []string
	for dep := range strings.SplitSeq(fields["Depends"], ",") {
		if words := strings.Fields(dep); len(words) > 0 {
			names = append(names, words[0])
		}
	}
	return names
}

// bulk is what no test guest needs and most of a kernel package consists of.
var bulk = []string{
	"usr/share", "sound", "drivers/gpu", "drivers/media", "drivers/staging", "drivers/infiniband",
	"drivers/scsi", "drivers/usb", "drivers/iio", "drivers/hid", "drivers/input", "drivers/net/wireless",
	"drivers/net/ethernet", "drivers/hwmon", "drivers/platform", "drivers/target", "drivers/isdn",
}

// unpackKernel downloads the packages into dir and unpacks them to dir/root.
func unpackKernel(ctx context.Context, dir string, pkgs []string, progress io.Writer) error {
	download := exec.CommandContext(ctx, "apt-get", slices.Concat([]string{"download"}, pkgs)...)
	download.Dir = dir
	var said bytes.Buffer
	download.Stdout, download.Stderr = &said, &said
	if progress != nil {
		download.Stdout = io.MultiWriter(&said, progress)
	}
	if err := download.Run(); err != nil {
		return fmt.Errorf("download %s: %w; if the package is gone, run: apt-get update\n%s", strings.Join(pkgs, " "), err, said.Bytes())
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) == 0 {
		return fmt.Errorf("download %s: apt-get left no package", strings.Join(pkgs, " "))
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return fmt.Errorf("unpack the kernel: %w", err)
	}
	for _, deb := range debs {
		if err := unpackDeb(ctx, root, deb); err != nil {
			return err
		}
	}
	// Newer packages put the modules under /usr; depmod looks in /lib.
	if _, err := os.Lstat(filepath.Join(root, "lib")); errors.Is(err, os.ErrNotExist) {
		if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
			return fmt.Errorf("unpack the kernel: %w", err)
		}
	}
	release, err := releaseIn(root)
	if err != nil {
		return err
	}
	_, err = output(ctx, "depmod", "-b", root, release)
	return err
}

func unpackDeb(ctx context.Context, root, deb string) error {
	args := []string{"-x", "--no-same-owner", "-C", root}
	for _, b := range bulk {
		args = append(args, "--exclude=*/"+b)
	}
	from := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	to := exec.CommandContext(ctx, "tar", args...)
	pipe, err := from.StdoutPipe()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	var said bytes.Buffer
	to.Stdin, to.Stderr = pipe, &said
	if err := from.Start(); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	untar := to.Run()
	if err := errors.Join(untar, from.Wait()); err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", filepath.Base(deb), err, said.Bytes())
	}
	return nil
}

// releaseIn finds the one kernel release under root.
func releaseIn(root string) (string, error) {
	found, err := filepath.Glob(filepath.Join(root, "lib/modules/*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s holds %d kernel releases, want one", root, len(found))
	}
	return filepath.Base(found[0]), nil
}

func openKernel(root string) (*Kernel, error) {
	release, err := releaseIn(root)
	if err != nil {
		return nil, err
	}
	k := &Kernel{
		Release: release,
		Image:   filepath.Join(root, "boot/vmlinuz-"+release),
		Modules: filepath.Join(root, "lib/modules", release),
	}
	for _, f := range []string{k.Image, filepath.Join(k.Modules, "modules.dep")} {
		if _, err := os.Stat(f); err != nil {
			return nil, fmt.Errorf("open the cached kernel: %w", err)
		}
	}
	return k, nil
}

// lockFile takes an exclusive lock that is gone with the process.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
