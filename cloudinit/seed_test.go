package cloudinit_test

import (
	"bytes"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/rum-vm/rum-agent/cloudinit"
	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGGgcZ8SCdmOdRqA6fiYMtKYvlsPFTSQq9xHlBuBOCJQ dev: \"me\" # laptop"

func mac(t testing.TB, s string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newSeed is a complete seed with agents that are shell scripts: nothing here looks into them.
func newSeed(t testing.TB) *cloudinit.Seed {
	t.Helper()
	key, err := keyfile.Parse([]byte(strings.Repeat("5a", keyfile.Size)))
	if err != nil {
		t.Fatal(err)
	}
	return &cloudinit.Seed{
		Name:           "Dev_Box.1",
		UUID:           "6F3C1A52-0d8e-4c7e-9b51-2f6f0a7d1c01",
		AuthorizedKeys: []string{publicKey},
		NAT:            mac(t, "52:54:00:12:34:56"),
		HostOnly:       mac(t, "52:54:00:AB:CD:EF"),
		Key:            key,
		Agents: []cloudinit.Agent{
			{Arch: "arm64", Binary: []byte("#!/bin/sh\necho arm64\n")},
			{Arch: "amd64", Binary: []byte("#!/bin/sh\necho amd64\n")},
		},
	}
}

func documents(t testing.TB, s *cloudinit.Seed) cloudinit.Documents {
	t.Helper()
	docs, err := s.Documents()
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestDocumentsAreAsRecorded(t *testing.T) {
	docs := documents(t, newSeed(t))
	for name, got := range map[string][]byte{
		"meta-data": docs.MetaData, "user-data": docs.UserData, "vendor-data": docs.VendorData, "network-config": docs.NetworkConfig,
	} {
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not as in %s (go test -update writes it):\n%s", name, golden, diff)
		}
	}
}

func TestUserDataStaysByteIdentical(t *testing.T) {
	s := newSeed(t)
	s.UserData = []byte("\r\n#cloud-config\r\nruncmd:\r\n  - [echo, \"gr\u00fc\u00dfe\"]   \r\n\r\n")
	if docs := documents(t, s); !bytes.Equal(docs.UserData, s.UserData) {
		t.Errorf("user-data became %q", docs.UserData)
	}
}

func TestVendorDataIsOneBoothookAndNothingElse(t *testing.T) {
	vendor := documents(t, newSeed(t)).VendorData
	var entries []map[string]string
	if err := yaml.Unmarshal(vendor, &entries); err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0]["type"] != "text/cloud-boothook" || entries[0]["filename"] == "" || len(entries[0]) != 3 {
		t.Errorf("vendor-data is %d entries, the first of type %q", len(entries), entries[0]["type"])
	}
	if kind, err := cloudinit.CheckUserData(vendor); kind != cloudinit.KindArchive || err != nil {
		t.Errorf("vendor-data is %q, error %v", kind, err)
	}
	if strings.Contains(string(vendor), strings.Repeat("5a", keyfile.Size)) {
		t.Error("vendor-data, which cloud-init copies to other files, shows the key")
	}
}

func TestInstanceIDFollowsNameAndUUID(t *testing.T) {
	id := func(name, uuid string) string {
		s := newSeed(t)
		s.Name, s.UUID = name, uuid
		var meta map[string]any
		if err := yaml.Unmarshal(documents(t, s).MetaData, &meta); err != nil {
			t.Fatal(err)
		}
		return meta["instance-id"].(string)
	}
	if id("dev", "AB") != id("dev", "ab") {
		t.Error("the case of the UUID changes the instance-id")
	}
	for _, other := range []string{id("dev2", "ab"), id("dev", ""), id("deva", "b")} {
		if other == id("dev", "ab") {
			t.Error("two guests share an instance-id")
		}
	}
	withUserData := newSeed(t)
	withUserData.UserData = []byte("#!/bin/sh\n")
	if !bytes.Equal(documents(t, withUserData).MetaData, documents(t, newSeed(t)).MetaData) {
		t.Error("meta-data depends on user-data")
	}
}

func TestHostnameComesFromTheNameUnlessGiven(t *testing.T) {
	for _, row := range []struct{ name, hostname, want string }{
		{"dev", "", "dev"}, {"My VM (copy)", "", "my-vm-copy"}, {"__x__", "", "x"},
		{strings.Repeat("a", 62) + "--b", "", strings.Repeat("a", 62)}, {"dev", "web.example.org", "web.example.org"}, {"1e3", "", "1e3"},
	} {
		s := newSeed(t)
		s.Name, s.Hostname = row.name, row.hostname
		var meta map[string]any
		if err := yaml.Unmarshal(documents(t, s).MetaData, &meta); err != nil {
			t.Fatal(err)
		}
		if meta["local-hostname"] != row.want {
			t.Errorf("%q, %q: host name %q", row.name, row.hostname, meta["local-hostname"])
		}
	}
}

func TestNetworkConfigHasOnlyKnownInterfaces(t *testing.T) {
	s := newSeed(t)
	s.HostOnly = nil
	if got := string(documents(t, s).NetworkConfig); !strings.Contains(got, "nat:") || strings.Contains(got, "hostonly:") {
		t.Errorf("with a NAT interface alone:\n%s", got)
	}
	s.NAT = nil
	if docs := documents(t, s); docs.NetworkConfig != nil {
		t.Errorf("without MAC addresses:\n%s", docs.NetworkConfig)
	}
}

func TestBadSeedIsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(*cloudinit.Seed)
		want  string
	}{
		"no name":        {func(s *cloudinit.Seed) { s.Name = "" }, "no name"},
		"no key":         {func(s *cloudinit.Seed) { s.Key = keyfile.Key{} }, "no key"},
		"no agent":       {func(s *cloudinit.Seed) { s.Agents = nil }, "no guest agent"},
		"twice amd64":    {func(s *cloudinit.Seed) { s.Agents = append(s.Agents, s.Agents[0]) }, "two agents for arm64"},
		"bad host name":  {func(s *cloudinit.Seed) { s.Hostname = "a_b" }, "not a host name"},
		"no host name":   {func(s *cloudinit.Seed) { s.Name = "..." }, "give one"},
		"not a key":      {func(s *cloudinit.Seed) { s.AuthorizedKeys = []string{"ssh-rsa nonsense"} }, "authorized_keys"},
		"same MAC":       {func(s *cloudinit.Seed) { s.HostOnly = s.NAT }, "both interfaces"},
		"multicast":      {func(s *cloudinit.Seed) { s.NAT = mac(t, "01:00:5e:00:00:01") }, "not the MAC address"},
		"bad user-data":  {func(s *cloudinit.Seed) { s.UserData = []byte("hello") }, "user-data: line 1"},
		"void user-data": {func(s *cloudinit.Seed) { s.UserData = []byte{} }, "user-data: line 1: it is empty"},
	} {
		s := newSeed(t)
		row.spoil(s)
		if _, err := s.Documents(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v", name, err)
		}
		if err := s.WriteISO(filepath.Join(t.TempDir(), "seed.iso")); err == nil {
			t.Errorf("%s: an image was written", name)
		}
	}
}

func TestAuthorizedKeysAreCheckedLineByLine(t *testing.T) {
	keys, err := cloudinit.ParseAuthorizedKeys([]byte("# mine\n\n" + publicKey + "\r\nrestrict " + publicKey))
	if err != nil || len(keys) != 2 || keys[0] != publicKey {
		t.Errorf("keys %q, error %v", keys, err)
	}
	for content, want := range map[string]string{
		"\n-----BEGIN OPENSSH PRIVATE KEY-----\n": "line 2: this is a private key",
		publicKey + "\nnonsense\n":                "line 2: not a public key",
		"# nothing\n":                             "no public key",
	} {
		if _, err := cloudinit.ParseAuthorizedKeys([]byte(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: error %v", content, err)
		}
	}
}

// A seed image takes no device's place.
func TestASeedLeavesWhatIsNoFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newSeed(t).WriteISO(path); err == nil || !strings.Contains(err.Error(), "left alone") {
		t.Errorf("%v", err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("it is %v now, %v", info.Mode(), err)
	}
}
