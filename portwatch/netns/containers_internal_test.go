package netns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	dockerID  = "0af1c9ab1cfae03eb21f2d3a4b8a4be1f8a9a6c1a38bb1f0a4dba1b6c21e9d3f"
	podmanID  = "b7d1a2f3c4e5b6a798a9b0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f60718293a4b"
	unknownID = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
)

// Files as Docker and Podman write them, without what is not read.
func TestAContainerHasTheNameThatItsRuntimeGaveIt(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{
		"proc/10/cgroup":   "0::/system.slice/docker-" + dockerID + ".scope\n",
		"proc/11/cgroup":   "0::/machine.slice/libpod-" + podmanID + ".scope/container\n",
		"proc/12/cgroup":   "12:memory:/kubepods/besteffort/pod1/" + unknownID + "\n0::/\n",
		"proc/self/cgroup": "12:memory:/docker/" + strings.Repeat("a", 64) + "\n",
		"proc/16/cgroup":   "12:memory:/docker/" + strings.Repeat("a", 64) + "\n",
		"proc/13/cgroup":   "0::/user.slice/user-1000.slice/session-2.scope\n",
		"proc/17/cgroup":   "0::/system.slice/docker-" + strings.Repeat("e", 64) + ".scope\n",
		"proc/14/cgroup":   "0::/system.slice/docker-" + strings.Repeat("f", 64) + ".scope\n",
		"root/var/lib/docker/containers/" + dockerID + "/config.v2.json":                `{"ID":"` + dockerID + `","Name":"/shop-db-1","State":{}}`,
		"root/var/lib/docker/containers/" + strings.Repeat("e", 64) + "/config.v2.json": `{"Name":"/\u001b[2Jred` + strings.Repeat("x", 100) + `"}`,
		"root/var/lib/docker/containers/" + strings.Repeat("f", 64) + "/config.v2.json": `{"Name":`,
		"root/var/lib/containers/storage/overlay-containers/containers.json":            `[{"id":"` + podmanID + `","names":["web"]},{"id":"x"}]`,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names := newContainerNames(filepath.Join(dir, "proc"), filepath.Join(dir, "root"))
	for pid, want := range map[int]string{10: "shop-db-1", 11: "web", 12: "c0ffee00c0ff", 13: "", 14: "ffffffffffff", 15: "", 16: "", 17: "?[2Jred" + strings.Repeat("x", 25)} {
		if got := names.of(filepath.Join(dir, "proc"), pid); got != want {
			t.Errorf("process %d is in %q, want %q", pid, got, want)
		}
	}
}
