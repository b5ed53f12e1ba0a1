//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// readParts has cloud-init's own code take a document apart, and prints what its handlers would be given.
const readParts = `
import base64, json, sys, types
from cloudinit import handlers, user_data, util
from cloudinit.helpers import Paths
blob = base64.b64decode(sys.stdin.read())
message = user_data.UserDataProcessor(Paths({})).process(blob)
parts = []
def part(data, filename, payload, headers):
    if isinstance(payload, bytes):
        payload = payload.decode()
    parts.append([headers["Content-Type"], filename, payload])
handlers.walk(message, part, None)
print(json.dumps(parts))
`

// part is one part of a document: its type, its file name and its content.
type part [3]string

func partsInGuest(t *testing.T, m *machine, doc []byte) []part {
	t.Helper()
	out := m.run("echo %s | base64 -d >/tmp/parts.py; echo %s | python3 /tmp/parts.py",
		base64.StdEncoding.EncodeToString([]byte(readParts)), base64.StdEncoding.EncodeToString(doc))
	var parts []part
	if err := json.Unmarshal([]byte(out), &parts); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return parts
}

// checkDocuments wants cloud-init to see in our documents what we put there, for every kind of user-data.
func checkDocuments(t *testing.T, m *machine) {
	seed := cloudinit.Seed{Name: "dev", Key: keyfile.New(), Agents: []cloudinit.Agent{{Arch: "amd64", Binary: []byte("agent")}}}
	docs, err := seed.Documents()
	if err != nil {
		t.Fatal(err)
	}
	m.run("echo %s | base64 -d >/tmp/user-data && cloud-init schema -c /tmp/user-data", base64.StdEncoding.EncodeToString(docs.UserData))
	vendor := partsInGuest(t, m, docs.VendorData)
	if len(vendor) != 1 || vendor[0][0] != "text/cloud-boothook" || vendor[0][1] != "rum-guest-agent" {
		t.Errorf("vendor-data: %q", vendor)
	}

	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	z.Write([]byte("#!/bin/sh\necho größe\n"))
	z.Close()
	for name, data := range map[string]string{
		"cloud-config": "#cloud-config\nhostname: größe\n",
		"script":       "#!/bin/sh\necho hi   \n\n",
		"compressed":   compressed.String(),
		"jinja":        "## template: jinja\n#cloud-config\nhostname: {{ v1.local_hostname }}\n",
		"archive":      "#cloud-config-archive\n- \"#!/bin/sh\\necho hi\"\n- type: text/cloud-config\n  content: \"a: b\"\n",
		"MIME": "Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/cloud-config\n\n#cloud-config\na: b\n" +
			"--b\nContent-Type: text/x-shellscript\nContent-Disposition: attachment; filename=\"x\"\n\n#!/bin/sh\necho hi\n--b--\n",
	} {
		seed.UserData = []byte(data)
		doc, err := seed.UserDataOnly()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		alone, together := partsInGuest(t, m, []byte(data)), partsInGuest(t, m, doc)
		last := len(together) - 1
		if diff := cmp.Diff(alone, slices.Delete(slices.Clone(together), last, last+1)); diff != "" {
			t.Errorf("%s: cloud-init sees other parts in the one document:\n%s", name, diff)
		}
		if together[last][0] != "text/cloud-boothook" || together[last][1] != "rum-guest-agent" {
			t.Errorf("%s: the last part is %q", name, together[last][:2])
		}
	}
}
