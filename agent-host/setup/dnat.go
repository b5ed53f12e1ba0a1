package setup

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

const hooksDir = "/etc/libvirt/hooks"

// The hooks that run around domains and networks, of https://libvirt.org/hooks.html, are where port forwards by DNAT are
// usually set up.
var hookNames = []string{"qemu", "network"}

var dnat = regexp.MustCompile(`(?i)\bDNAT\b`)

// dnatNotes says which libvirt hooks forward ports by address translation. The rules themselves are the shell's matter:
// their ports are often variables.
func dnatNotes(dir string) []string {
	var notes []string
	for _, name := range hookNames {
		paths, _ := filepath.Glob(filepath.Join(dir, name+".d", "*")) // the pattern is ours
		for _, path := range append([]string{filepath.Join(dir, name)}, paths...) {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // absent, or not for this user's eyes
			}
			lines := bufio.NewScanner(bytes.NewReader(text))
			for n := 1; lines.Scan(); n++ {
				line := bytes.TrimSpace(lines.Bytes())
				if dnat.Match(line) && !bytes.HasPrefix(line, []byte("#")) {
					notes = append(notes, fmt.Sprintf("%s:%d forwards ports by DNAT: %.120s", path, n, line))
					break
				}
			}
		}
	}
	return notes
}
