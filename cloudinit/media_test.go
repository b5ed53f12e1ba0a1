package cloudinit_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rum-vm/rum-agent/cloudinit"
)

// tool returns the path of a program that a test cannot do without.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed; run: apt-get install %s", name, pkg)
	}
	return path
}

// extract writes the seed image of s and unpacks it with xorriso, another implementation of ISO 9660.
func extract(t testing.TB, s *cloudinit.Seed) (tree string) {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "seed.iso")
	if err := s.WriteISO(image); err != nil {
		t.Fatal(err)
	}
	tree = filepath.Join(dir, "tree")
	cmd := exec.Command(tool(t, "xorriso", "xorriso"), "-osirrox", "on", "-indev", image, "-extract", "/", tree)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", tree).Run() })
	return tree
}

func TestSeedImageIsReadByXorriso(t *testing.T) {
	s := newSeed(t)
	s.UserData = []byte(userData[cloudinit.KindMIME])
	// Longer than a block by one, and exactly a block.
	s.Agents[0].Binary = bytes.Repeat([]byte("a"), 2049)
	s.Agents[1].Binary = bytes.Repeat([]byte("b"), 2048)
	docs := documents(t, s)
	want := map[string]string{
		"meta-data": string(docs.MetaData), "user-data": string(docs.UserData), "vendor-data": string(docs.VendorData),
		"network-config": string(docs.NetworkConfig), "rum-agent/key": string(s.Key.Encode()),
		"rum-agent/rum-guest-agent-linux-arm64": string(s.Agents[0].Binary),
		"rum-agent/rum-guest-agent-linux-amd64": string(s.Agents[1].Binary),
	}
	for _, name := range []string{"rum-guest-agent.service", "rum-guest-agent.openrc", "rum-open", "rum-open.profile"} {
		data, err := os.ReadFile(filepath.Join("guest", name))
		if err != nil {
			t.Fatal(err)
		}
		want["rum-agent/"+name] = string(data)
	}
	tree := extract(t, s)
	got := make(map[string]string)
	modes := make(map[string]os.FileMode)
	err := filepath.WalkDir(tree, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(tree, path)
		data, err := os.ReadFile(path)
		got[name] = string(data)
		info, _ := d.Info()
		modes[name] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files in the image:\n%s", diff)
	}
	for name, mode := range map[string]os.FileMode{"user-data": 0o600, "rum-agent/key": 0o600, "rum-agent/rum-guest-agent-linux-amd64": 0o755} {
		if modes[name] != mode {
			t.Errorf("%s has mode %v in the image", name, modes[name])
		}
	}
}

func TestSeedImageIsLabelledPrivateAndReplacedWhole(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "seed.iso")
	if err := os.WriteFile(image, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := newSeed(t).WriteISO(image); err != nil {
		t.Fatal(err)
	}
	if data, _ := io.ReadAll(old); string(data) != "old" {
		t.Error("who has the old image open sees another")
	}
	if info, _ := os.Stat(image); info.Mode().Perm() != 0o600 || info.Size()%2048 != 0 {
		t.Errorf("image has mode %v and %d bytes", info.Mode(), info.Size())
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	// ECMA-119 section 8.4: the volume identifier is 32 bytes at 40 of the descriptor in sector 16. The rest of them
	// should be spaces; zeros, which blkid and the kernel take as well, are what the library writes.
	if label := string(data[16*2048+40:][:32]); strings.TrimRight(label, " \x00") != "CIDATA" {
		t.Errorf("volume label %q", label)
	}
	if err := newSeed(t).WriteISO(filepath.Join(dir, "none", "seed.iso")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("into a directory that is not there: %v", err)
	}
}

// part is one part of a MIME document, decoded.
type part struct {
	contentType string
	body        []byte
}

func parts(t *testing.T, doc []byte) []part {
	t.Helper()
	message, err := mail.ReadMessage(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	reader := multipart.NewReader(message.Body, params["boundary"])
	var all []part
	for {
		p, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if p.Header.Get("Content-Transfer-Encoding") == "base64" {
			text := strings.ReplaceAll(string(body), "\n", "")
			if body, err = base64.StdEncoding.DecodeString(text); err != nil {
				t.Fatal(err)
			}
		}
		contentType, _, _ := strings.Cut(p.Header.Get("Content-Type"), ";")
		all = append(all, part{contentType, body})
	}
}

func TestUserDataOnlyKeepsTheUsersPartUnchanged(t *testing.T) {
	for kind, text := range userData {
		if kind == cloudinit.KindMIME {
			continue
		}
		for _, data := range [][]byte{[]byte(text), zip(text)} {
			s := newSeed(t)
			s.UserData = data
			doc, err := s.UserDataOnly()
			if err != nil {
				t.Fatal(err)
			}
			all := parts(t, doc)
			if len(all) != 2 || string(all[0].body) != text || all[1].contentType != "text/cloud-boothook" {
				t.Errorf("%s: %d parts, the first is %q", kind, len(all), all[0].body)
			}
			if kind, err := cloudinit.CheckUserData(doc); kind != cloudinit.KindMIME || err != nil {
				t.Errorf("the document is %q, error %v", kind, err)
			}
		}
	}
}

func TestUserDataOnlyNestsAMIMEDocument(t *testing.T) {
	s := newSeed(t)
	s.UserData = []byte(mimeDocument)
	doc, err := s.UserDataOnly()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(doc, s.UserData) {
		t.Error("the user's document is not in it as it was")
	}
	all := parts(t, doc)
	if len(all) != 2 || all[0].contentType != "multipart/mixed" {
		t.Errorf("%d parts, the first of type %s", len(all), all[0].contentType)
	}
	if again, _ := s.UserDataOnly(); !bytes.Equal(doc, again) {
		t.Error("the same seed made two documents")
	}
}

func TestUserDataOnlyCarriesTheFiles(t *testing.T) {
	s := newSeed(t)
	doc, err := s.UserDataOnly()
	if err != nil {
		t.Fatal(err)
	}
	all := parts(t, doc)
	if len(all) != 1 {
		t.Fatalf("%d parts without user-data", len(all))
	}
	_, payload, ok := bytes.Cut(all[0].body, []byte("\n# payload\n"))
	if !ok {
		t.Fatal("no payload")
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(payload)))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for r := tar.NewReader(z); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[header.Name] = string(data)
	}
	if len(got) != 7 || got["rum-agent/key"] != string(s.Key.Encode()) ||
		got["rum-agent/rum-guest-agent-linux-amd64"] != string(s.Agents[1].Binary) {
		t.Errorf("payload: %q", got)
	}
}

func TestAgentIsReadFromItsExecutable(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "agent")
	build := exec.Command("go", "build", "-o", binary, "github.com/rum-vm/rum-agent/agent-guest/cmd/rum-guest-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	agent, err := cloudinit.ReadAgent(binary)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(binary); agent.Arch != runtime.GOARCH || int64(len(agent.Binary)) != info.Size() {
		t.Errorf("architecture %q, %d bytes", agent.Arch, len(agent.Binary))
	}
}

func TestWhatIsNotAnAgentIsRefused(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", other, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		source:                     "not a Linux executable",
		tool(t, "ls", "coreutils"): "dynamically linked",
		other:                      "not rum-guest-agent",
		dir:                        "not a regular file",
		pipe:                       "not a regular file",
	} {
		if _, err := cloudinit.ReadAgent(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", path, err)
		}
	}
}
