package netns

import (
	"cmp"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/portwatch/process"
)

// containerNames finds what runtimes call their containers.
type containerNames struct {
	root   string            // of the machine's file system
	own    string            // the ID of the container that this program is in
	podman map[string]string // by ID; nil before it was read
}

// containerID is how Docker, Podman and their like number containers. It is in the path of
// a container's cgroup: "/system.slice/docker-ID.scope", "/machine.slice/libpod-ID.scope".
var containerID = regexp.MustCompile(`[0-9a-f]{64}`)

// shortID is how many digits of an ID people are shown.
const shortID = 12

func newContainerNames(proc, root string) *containerNames {
	b, _ := os.ReadFile(filepath.Join(proc, "self/cgroup"))
	return &containerNames{root: root, own: containerID.FindString(string(b))}
}

// of is the name of the container that a process is in, fit to be shown, or the beginning of
// its ID where the runtime does not say the name; "" for none.
func (c *containerNames) of(proc string, pid int) string {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return ""
	}
	id := containerID.FindString(string(b))
	if id == "" || id == c.own {
		return ""
	}
	return process.Printable(cmp.Or(c.docker(id), c.podmans()[id], id[:shortID]), process.MaxName/2)
}

// docker reads the name from the file where Docker keeps what it knows of a container.
func (c *containerNames) docker(id string) string {
	var is struct{ Name string }
	readJSON(filepath.Join(c.root, "var/lib/docker/containers", id, "config.v2.json"), &is)
	return strings.TrimPrefix(is.Name, "/")
}

// podmans reads the names from the list that Podman's storage, of root, has of all
// containers.
func (c *containerNames) podmans() map[string]string {
	if c.podman != nil {
		return c.podman
	}
	c.podman = make(map[string]string)
	var all []struct {
		ID    string   `json:"id"`
		Names []string `json:"names"`
	}
	readJSON(filepath.Join(c.root, "var/lib/containers/storage/overlay-containers/containers.json"), &all)
	for _, one := range all {
		if len(one.Names) > 0 {
			c.podman[one.ID] = one.Names[0]
		}
	}
	return c.podman
}

// maxJSON is more than a runtime writes of thousands of containers, in bytes.
const maxJSON = 16 << 20

// readJSON leaves v as it is where there is nothing to read.
func readJSON(path string, v any) {
	if file, err := os.Open(path); err == nil {
		defer file.Close()
		_ = json.NewDecoder(io.LimitReader(file, maxJSON)).Decode(v)
	}
}
