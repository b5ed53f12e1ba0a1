package debian

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/rum-vm/rum-agent/test/vm"
)

// FetchKernel returns the kernel of a release from the cache, or downloads it, for the small guests of package vm.
// Nothing is installed. A mirror may be older than its index says that it may be.
func FetchKernel(ctx context.Context, suite string, progress io.Writer) (*vm.Kernel, error) {
	cache, err := vm.CacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "kernel-"+suite)
	if kernel, err := openKernel(dir); err == nil {
		return kernel, nil
	}
	work, err := os.MkdirTemp(cache, "kernel-new-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	root, out := filepath.Join(work, "root"), filepath.Join(work, "out")
	fetch := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=extract", `--aptopt=Acquire::Check-Valid-Until "false"`,
		"--include=linux-image-"+runtime.GOARCH, suite, root)
	fetch.Stdout, fetch.Stderr = progress, progress
	if err := fetch.Run(); err != nil {
		return nil, fmt.Errorf("fetch the kernel of %s: mmdebstrap: %w", suite, err)
	}
	if err := os.MkdirAll(filepath.Join(out, "lib"), 0o700); err != nil {
		return nil, err
	}
	modules := filepath.Join(root, "usr/lib/modules") // where newer packages have them
	if _, err := os.Stat(modules); err != nil {
		modules = filepath.Join(root, "lib/modules")
	}
	if err := os.Rename(modules, filepath.Join(out, "lib/modules")); err != nil {
		return nil, fmt.Errorf("fetch the kernel of %s: %w", suite, err)
	}
	_ = os.Rename(filepath.Join(root, "boot"), filepath.Join(out, "boot")) // newer ones have the image among the modules
	kernel, err := openKernel(out)
	if err != nil {
		return nil, err
	}
	depmod := exec.CommandContext(ctx, "depmod", "-b", out, kernel.Release)
	if said, err := depmod.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("depmod: %w\n%s", err, said)
	}
	if err := os.Rename(out, dir); err != nil {
		return nil, err
	}
	return openKernel(dir)
}

func openKernel(root string) (*vm.Kernel, error) {
	found, _ := filepath.Glob(filepath.Join(root, "lib/modules/*")) // the pattern is ours
	if len(found) != 1 {
		return nil, fmt.Errorf("%s has %d kernel releases, want one", root, len(found))
	}
	release := filepath.Base(found[0])
	image := filepath.Join(root, "boot/vmlinuz-"+release)
	if _, err := os.Stat(image); err != nil {
		image = filepath.Join(found[0], "vmlinuz")
	}
	return &vm.Kernel{Release: release, Image: image, Modules: found[0]}, nil
}
