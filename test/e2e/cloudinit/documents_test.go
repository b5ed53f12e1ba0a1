//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// readParts has cloud-init's own code take documents apart, and prints what its handlers would be given.
const readParts = `
import base64, json, sys
from cloudinit import handlers, user_data
from cloudinit.helpers import Paths
result = {}
for name, blob in json.load(sys.stdin).items():
    parts = result[name] = []
    def part(data, filename, payload, headers):
        if isinstance(payload, bytes):
            payload = payload.decode()
        parts.append([headers["Content-Type"], filename, payload])
    message = user_data.UserDataProcessor(Paths({})).process(base64.b64decode(blob))
    handlers.walk(message, part, None)
print(json.dumps(result))
`

// part is one part of a document: its type, its file name and its content.
type part [3]string

// partsInGuest returns the parts of each document.
func partsInGuest(t *testing.T, m *machine, docs map[string][]byte) map[string][]part {
	t.Helper()
	input, err := json.Marshal(docs) // bytes in base64
	if err != nil {
		t.Fatal(err)
	}
	out := m.run("echo %s | base64 -d >/tmp/parts.py; echo %s | base64 -d | python3 /tmp/parts.py",
		base64.StdEncoding.EncodeToString([]byte(readParts)), base64.StdEncoding.EncodeToString(input))
	var parts map[string][]part
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
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	z.Write([]byte("#!/bin/sh\necho größe\n"))
	z.Close()
	users := map[string]string{
		"cloud-config": "#cloud-config\nhostname: größe\n",
		"script":       "#!/bin/sh\necho hi   \n\n",
		"compressed":   compressed.String(),
		"jinja":        "## template: jinja\n#cloud-config\nhostname: {{ v1.local_hostname }}\n",
		"archive":      "#cloud-config-archive\n- \"#!/bin/sh\\necho hi\"\n- type: text/cloud-config\n  content: \"a: b\"\n",
		"MIME": "Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/cloud-config\n\n#cloud-config\na: b\n" +
			"--b\nContent-Type: text/x-shellscript\nContent-Disposition: attachment; filename=\"x\"\n\n#!/bin/sh\necho hi\n--b--\n",
	}
	all := map[string][]byte{"vendor-data": docs.VendorData}
	for name, data := range users {
		seed.UserData = []byte(data)
		doc, err := seed.UserDataOnly()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name], all[name+" together"] = seed.UserData, doc
	}
	parts := partsInGuest(t, m, all)
	ours := func(name string, p part) {
		if p[0] != "text/cloud-boothook" || p[1] != "rum-guest-agent" {
			t.Errorf("%s: our part is %q", name, p[:2])
		}
	}
	if vendor := parts["vendor-data"]; len(vendor) != 1 {
		t.Errorf("vendor-data: %q", vendor)
	} else {
		ours("vendor-data", vendor[0])
	}
	for name := range users {
		together := parts[name+" together"]
		last := len(together) - 1
		if diff := cmp.Diff(parts[name], together[:last]); diff != "" {
			t.Errorf("%s: cloud-init sees other parts in the one document:\n%s", name, diff)
		}
		ours(name, together[last])
	}
}
