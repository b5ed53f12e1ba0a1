package cloudinit

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// The files that are the same for every guest.
var (
	//go:embed guest/install.sh
	installScript string
	//go:embed guest/uninstall.sh
	uninstallScript string
	//go:embed guest/rum-guest-agent.service
	systemdUnit []byte
	//go:embed guest/rum-guest-agent.openrc
	openrcScript []byte
	//go:embed guest/rum-open
	openScript []byte
	//go:embed guest/rum-open.profile
	openProfile []byte
)

// shebang begins guest/install.sh; the settings go behind it.
const shebang = "#!/bin/sh\n"

// payloadMark is the line behind which the script's own files begin.
const payloadMark = "# payload\n"

// mode says where the installing script takes its files from and who runs it: see guest/install.sh.
type mode string

const (
	modeSeed    mode = "seed"
	modePayload mode = "payload"
	modeInstall mode = "install"
)

// file is one file of a seed.
type file struct {
	name string
	data []byte
	perm int64
}

// agentFiles are what the installing script copies, in the directory rum-agent.
func (s *Seed) agentFiles() []file {
	files := []file{
		{"key", s.Key.Encode(), 0o600},
		{"rum-guest-agent.service", systemdUnit, 0o644},
		{"rum-guest-agent.openrc", openrcScript, 0o755},
		{"rum-open", openScript, 0o755},
		{"rum-open.profile", openProfile, 0o644},
	}
	for _, a := range s.Agents {
		files = append(files, file{a.file(), a.Binary, 0o755})
	}
	return files
}

// installer is the script that installs the agent, with the payload behind it unless the files are in the seed.
func (s *Seed) installer(m mode) ([]byte, error) {
	var b strings.Builder
	b.WriteString(shebang)
	fmt.Fprintf(&b, "mode=%s\n", m)
	id := sha256.New()
	set := func(name string, data []byte) {
		line := fmt.Sprintf("%s_sum=%s\n", name, sum(data))
		b.WriteString(line)
		id.Write([]byte(line))
	}
	set("key", s.Key.Encode())
	set("systemd", systemdUnit)
	set("openrc", openrcScript)
	set("open", openScript)
	set("profile", openProfile)
	agents := slices.SortedFunc(slices.Values(s.Agents), func(x, y Agent) int { return strings.Compare(x.Arch, y.Arch) })
	var names []string
	for _, a := range agents {
		set("agent_"+a.Arch, a.Binary)
		names = append(names, a.Arch)
	}
	fmt.Fprintf(&b, "agents='%s'\nid=%s\n", strings.Join(names, " "), hex.EncodeToString(id.Sum(nil)))
	b.WriteString("\n")
	b.WriteString(strings.TrimPrefix(installScript, shebang))
	if m == modeSeed {
		return []byte(b.String()), nil
	}
	archive, err := s.archive()
	if err != nil {
		return nil, err
	}
	b.WriteString("\n" + payloadMark)
	b.Write(base64Lines(archive))
	return []byte(b.String()), nil
}

// archive is a gzip-compressed tar of the files that the script copies.
func (s *Seed) archive() ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed) // somebody waits for it
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	for _, f := range s.agentFiles() {
		header := &tar.Header{Name: "rum-agent/" + f.name, Mode: f.perm, Size: int64(len(f.data))}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// KeyInPlace is what the script of [Seed.Installer] prints when the guest has the key, whatever becomes of the rest.
const KeyInPlace = "the key is in /etc/rum-agent/key\n"

// Installer is a shell script that installs the same files as the seed does, in a guest that already runs: for
// root, at any time, as often as one likes. It carries the key, so it is as secret as that.
func (s *Seed) Installer() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	return s.installer(modeInstall)
}

// Uninstaller is a shell script that removes from a guest what a seed or an installer put there: for root, at any time, as
// often as one likes.
func Uninstaller() []byte { return []byte(uninstallScript) }

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// base64Lines encodes data in lines of 76 characters, the most that MIME allows (RFC 2045 section 6.8).
func base64Lines(data []byte) []byte {
	const width = 76
	text := base64.StdEncoding.AppendEncode(nil, data)
	out := make([]byte, 0, len(text)+len(text)/width+1)
	for line := range slices.Chunk(text, width) {
		out = append(append(out, line...), '\n')
	}
	return out
}
