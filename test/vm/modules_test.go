package vm

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

const dep = `kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/virtio_console.ko.zst: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
`

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	set, err := parseModules(strings.NewReader(dep), strings.NewReader("kernel/net/packet/af_packet.ko\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := set.closure("virtio_console", "af_packet", "virtio_rng")
	want := []string{
		"kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko",
		"kernel/drivers/char/virtio_console.ko.zst", "kernel/drivers/char/hw_random/virtio-rng.ko.xz",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("closure = %q, %v, want %q", got, err, want)
	}
}

func TestUnknownModuleIsAnError(t *testing.T) {
	set, err := parseModules(strings.NewReader(dep), strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.closure("nonesuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closure of an unknown module gave %v", err)
	}
}

func TestMalformedModulesDepIsAnError(t *testing.T) {
	if _, err := parseModules(strings.NewReader("no colon here"), strings.NewReader("")); err == nil {
		t.Error("parsed")
	}
}
