//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// judge has cloud-init's own code take documents apart, into what its handlers would be given, and has the tool that
// knows a part's format judge it: "cloud-init schema" takes one cloud-config and no document of several parts.
const judge = `
import base64, json, subprocess, sys, tempfile
from cloudinit import handlers, user_data
from cloudinit.helpers import Paths

tools = {
    "text/cloud-config": ["cloud-init", "schema", "--config-file"],
    "text/cloud-boothook": ["sh", "-n"],
    "text/x-shellscript": ["sh", "-n"],
}

def verdict(kind, payload):
    if kind not in tools:
        return "not judged"
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(payload)
        file.flush()
        done = subprocess.run(tools[kind] + [file.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return "valid" if done.returncode == 0 else "refused: " + done.stdout

result = {}
for name, blob in json.load(sys.stdin).items():
    parts = result[name] = []
    def part(data, filename, payload, headers):
        if isinstance(payload, bytes):
            payload = payload.decode()
        kind = headers["Content-Type"]
        parts.append({"Kind": kind, "Name": filename, "Content": payload, "Verdict": verdict(kind, payload)})
    message = user_data.UserDataProcessor(Paths({})).process(base64.b64decode(blob))
    handlers.walk(message, part, None)
print(json.dumps(result))
`

// part is one part of a document, as cloud-init sees it.
type part struct{ Kind, Name, Content, Verdict string }

func judgeDocuments(t *testing.T, docs map[string][]byte) map[string][]part {
	t.Helper()
	input, err := json.Marshal(docs) // bytes in base64
	if err != nil {
		t.Fatal(err)
	}
	out, err := inRoot(t, input, "python3", "-c", judge)
	if err != nil {
		t.Fatal(err)
	}
	var parts map[string][]part
	if err := json.Unmarshal([]byte(out), &parts); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return parts
}

// usersDocuments are user-data of every kind whose parts are known before it is in the guest.
func usersDocuments() map[string]string {
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	z.Write([]byte("#!/bin/sh\necho größe\n"))
	z.Close()
	return map[string]string{
		"cloud-config": "#cloud-config\nhostname: größe\n",
		"script":       "#!/bin/sh\necho hi   \n\n",
		"compressed":   compressed.String(),
		"jinja":        "## template: jinja\n#cloud-config\nhostname: {{ v1.local_hostname }}\n",
		"archive": "#cloud-config-archive\n- \"#!/bin/sh\\necho hi\"\n- type: text/cloud-config\n" +
			"  content: \"#cloud-config\\nruncmd: [ls]\"\n",
		"MIME": "Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/cloud-config\n\n" +
			"#cloud-config\nruncmd: [ls]\n--b\nContent-Type: text/x-shellscript\n" +
			"Content-Disposition: attachment; filename=\"x\"\n\n#!/bin/sh\necho hi\n--b--\n",
	}
}

func newSeed() *cloudinit.Seed {
	return &cloudinit.Seed{Name: "dev", Key: keyfile.New(), Agents: []cloudinit.Agent{{Arch: "amd64", Binary: []byte("agent")}}}
}

// golden is a document of the seed that package cloudinit has on record.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "cloudinit", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestCloudInitAcceptsEveryDocument(t *testing.T) {
	docs := map[string][]byte{"user-data": golden(t, "user-data"), "vendor-data": golden(t, "vendor-data")}
	users := usersDocuments()
	for name, data := range users {
		seed := newSeed()
		seed.UserData = []byte(data)
		doc, err := seed.UserDataOnly()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		docs[name], docs[name+" together"] = seed.UserData, doc
	}
	parts := judgeDocuments(t, docs)
	for name, all := range parts {
		if len(all) == 0 {
			t.Errorf("%s: cloud-init sees nothing in it", name)
		}
		for _, p := range all {
			if p.Verdict != "valid" && p.Kind != "text/jinja2" { // what a template says is known in the guest
				t.Errorf("%s: part %s, %s: %s", name, p.Name, p.Kind, p.Verdict)
			}
		}
	}
	isOurs := func(name string, p part) {
		if p.Kind != "text/cloud-boothook" || p.Name != "rum-guest-agent" {
			t.Errorf("%s: our part is %q of type %s", name, p.Name, p.Kind)
		}
	}
	if vendor := parts["vendor-data"]; len(vendor) != 1 {
		t.Errorf("vendor-data has %d parts", len(vendor))
	} else {
		isOurs("vendor-data", vendor[0])
	}
	for name := range users {
		together := parts[name+" together"]
		last := len(together) - 1
		if diff := cmp.Diff(parts[name], together[:last]); diff != "" {
			t.Errorf("%s: cloud-init sees other parts in the one document:\n%s", name, diff)
		}
		isOurs(name, together[last])
	}
}

//go:embed verdict.py
var verdict string

// TestCloudInitAgreesOnWhatUserDataIsTaken asks cloud-init about the cases that CheckUserData is tested with.
func TestCloudInitAgreesOnWhatUserDataIsTaken(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "cloudinit", "testdata", "user-data-cases")
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d cases, error %v", len(files), err)
	}
	docs := make(map[string][]byte)
	for _, file := range files {
		if docs[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	input, err := json.Marshal(docs)
	if err != nil {
		t.Fatal(err)
	}
	out, err := inRoot(t, input, "python3", "-c", verdict)
	if err != nil {
		t.Fatal(err)
	}
	var verdicts map[string]string
	if err := json.Unmarshal([]byte(out), &verdicts); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, file := range files {
		if taken := verdicts[file] == "taken"; taken != (filepath.Base(filepath.Dir(file)) == "taken") {
			t.Errorf("%s: %s", file, verdicts[file])
		}
	}
}

// TestTheJudgeRefusesWhatIsBroken makes sure of the judge: where it sees nothing wrong, nothing is.
func TestTheJudgeRefusesWhatIsBroken(t *testing.T) {
	const broken = "#cloud-config\nruncmd: 5\n"
	seed := newSeed()
	seed.UserData = []byte(broken)
	together, err := seed.UserDataOnly()
	if err != nil {
		t.Fatal(err)
	}
	parts := judgeDocuments(t, map[string][]byte{
		"alone":      []byte(broken),
		"in archive": []byte("#cloud-config-archive\n- type: text/cloud-config\n  content: \"#cloud-config\\nruncmd: 5\"\n"),
		"together":   together,
		"no mapping": []byte("#cloud-config\n- runcmd\n"),
		"script":     bytes.Replace(golden(t, "vendor-data"), []byte("    esac\n"), nil, 1),
	})
	for name, all := range parts {
		if len(all) == 0 || !strings.HasPrefix(all[0].Verdict, "refused: ") {
			t.Errorf("%s: %+v", name, all)
		}
	}
}

// networkTool has every renderer of the package, and netplan, take a network-config. netplan is the strict one.
const networkTool = `
cat >/tmp/network-config
for renderer in netplan networkd eni network-manager; do
	mkdir "/tmp/$renderer"
	cloud-init devel net-convert --network-data /tmp/network-config --kind yaml --distro debian \
		--directory "/tmp/$renderer" --output-kind "$renderer" >&2
done
netplan generate --root-dir /tmp/netplan
cat /tmp/netplan/run/systemd/network/*
`

func TestCloudInitAcceptsTheNetworkConfig(t *testing.T) {
	config := golden(t, "network-config")
	out, err := inRoot(t, config, "sh", "-euc", networkTool)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PermanentMACAddress=52:54:00:12:34:56", "PermanentMACAddress=52:54:00:ab:cd:ef", "UseRoutes=false", "RequiredForOnline=no"} {
		if strings.Count(out, want) != 1 {
			t.Errorf("%d times %q in what networkd is told:\n%s", strings.Count(out, want), want, out)
		}
	}
	for good, bad := range map[string]string{"dhcp4: true": "dhcp4: maybe", "version: 2": "version: 7", "macaddress: \"52": "macaddress: \"xx"} {
		broken := bytes.Replace(config, []byte(good), []byte(bad), 1)
		if _, err := inRoot(t, broken, "sh", "-euc", networkTool); err == nil {
			t.Errorf("with %q it was taken as well", bad)
		}
	}
}
