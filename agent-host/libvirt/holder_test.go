package libvirt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAHolderThatForwardsToAVMIsNamedWithIt(t *testing.T) {
	root := t.TempDir()
	for pid, args := range map[string]string{
		"77": "/usr/bin/qemu-system-x86_64 -name guest=dev,debug-threads=on -S",
		"78": "/usr/bin/passt.avx2 --one-off --socket /run/libvirt/qemu/run/passt/3-my-vm-net0.socket --tcp-ports 2022:22",
		"79": "qemu-system-x86_64 -name byhand -nic user,hostfwd=tcp::2222-:22",
		"80": "qemu-system-x86_64 -m 1G",
		"81": "qemu-system-x86_64 -name guest=\x1b[2Jdev",
		"82": "qemu-system-x86_64 -name guest=\u202edev",
		"83": "qemu-system-x86_64 -name guest=" + strings.Repeat("x", 60<<10),
	} {
		if err := os.MkdirAll(filepath.Join(root, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		cmdline := strings.ReplaceAll(args, " ", "\x00") + "\x00"
		if err := os.WriteFile(filepath.Join(root, pid, "cmdline"), []byte(cmdline), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for process, want := range map[string]string{
		"qemu-system-x86[77]": "qemu-system-x86[77], the hostfwd of VM dev",
		"passt.avx2[78]":      "passt.avx2[78], the passt of VM my-vm",
		"qemu-system-x86[79]": "qemu-system-x86[79], the hostfwd of VM byhand",
		"qemu-system-x86[80]": "qemu-system-x86[80]",
		"qemu-system-x86[99]": "qemu-system-x86[99]",
		"qemu-system-x86[81]": "qemu-system-x86[81]", // any program can call itself so
		"qemu-system-x86[82]": "qemu-system-x86[82]",
		"qemu-system-x86[83]": "qemu-system-x86[83]",
		"nginx[77]":           "nginx[77]",
		"uid 33 (www-data)":   "uid 33 (www-data)",
		"":                    "",
	} {
		if got := nameHolderIn(root, process); got != want {
			t.Errorf("%q: got %q, want %q", process, got, want)
		}
	}
}
