package cloudinit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// boothookName is how the installing script is called among cloud-init's own files. A name of its own keeps it
// from being written over a part without one of the user's: those are numbered part-001 in both documents.
const boothookName = "rum-guest-agent"

// emptyUserData is the user-data of a guest without: NoCloud requires the file, and an empty one makes some versions
// of cloud-init warn.
const emptyUserData = "#cloud-config\n{}\n"

// Documents are the files at the root of a NoCloud seed.
type Documents struct {
	MetaData, UserData, VendorData []byte
	// NetworkConfig is nil when the guest's image decides about its network.
	NetworkConfig []byte
}

// Documents returns the seed's documents. UserData is the user's own, byte for byte.
func (s *Seed) Documents() (Documents, error) {
	if err := s.validate(); err != nil {
		return Documents{}, err
	}
	var docs Documents
	var err error
	if docs.MetaData, err = s.metaData(); err != nil {
		return Documents{}, err
	}
	if docs.NetworkConfig, err = s.networkConfig(); err != nil {
		return Documents{}, err
	}
	if docs.VendorData, err = s.vendorData(); err != nil {
		return Documents{}, err
	}
	docs.UserData = s.UserData
	if docs.UserData == nil {
		docs.UserData = []byte(emptyUserData)
	}
	return docs, nil
}

// archiveEntry is one document of a cloud-config-archive.
type archiveEntry struct {
	Type     string    `yaml:"type"`
	Filename string    `yaml:"filename"`
	Content  yaml.Node `yaml:"content"`
}

// vendorData is an archive of one entry, because a boothook by itself has no name.
func (s *Seed) vendorData() ([]byte, error) {
	script, err := s.installer(modeSeed)
	if err != nil {
		return nil, err
	}
	entry := archiveEntry{Type: KindBoothook.contentType(), Filename: boothookName}
	entry.Content = yaml.Node{Kind: yaml.ScalarNode, Style: yaml.LiteralStyle, Value: string(script)}
	list, err := yaml.Marshal([]archiveEntry{entry})
	if err != nil {
		return nil, err
	}
	return append([]byte("#cloud-config-archive\n"), list...), nil
}

const boothookHeader = `Content-Type: text/cloud-boothook; charset="us-ascii"
Content-Transfer-Encoding: 7bit
Content-Disposition: attachment; filename="` + boothookName + `"

`

// UserDataOnly is one user-data document for a datasource that has neither a disk nor vendor-data: the user's own
// part first, then the script with the agents in it. It is some megabytes long, more than most clouds take, so its length
// belongs into what the user is shown.
//
// Host name, SSH keys and network come from such a datasource itself, those of the seed are not in it.
func (s *Seed) UserDataOnly() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	script, err := s.installer(modePayload)
	if err != nil {
		return nil, err
	}
	var user []byte
	if s.UserData != nil {
		if user, err = userPart(s.UserData); err != nil {
			return nil, err
		}
	}
	boundary := boundaryFor(script, user)
	var b bytes.Buffer
	fmt.Fprintf(&b, "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=%q\n\n", boundary)
	if user != nil {
		fmt.Fprintf(&b, "--%s\n%s\n", boundary, user)
	}
	fmt.Fprintf(&b, "--%s\n%s%s\n--%s--\n", boundary, boothookHeader, script, boundary)
	return b.Bytes(), nil
}

// userPart is the user's document as a part of another: a MIME document as it is, with its own header lines as those of the
// part, anything else in base64, which alone brings every byte through.
func userPart(data []byte) ([]byte, error) {
	plain, err := gunzip(data)
	if err != nil {
		return nil, err
	}
	kind, err := CheckUserData(plain)
	if err != nil {
		return nil, err
	}
	if kind == KindMIME {
		return plain, nil
	}
	header := fmt.Sprintf("Content-Type: %s; charset=\"utf-8\"\nContent-Transfer-Encoding: base64\n\n", kind.contentType())
	return append([]byte(header), base64Lines(plain)...), nil
}

// boundaryFor returns a boundary that occurs in none of the parts, the same for the same parts.
func boundaryFor(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	for {
		boundary := "rum-" + hex.EncodeToString(h.Sum(nil)[:12])
		taken := false
		for _, p := range parts {
			taken = taken || bytes.Contains(p, []byte(boundary))
		}
		if !taken {
			return boundary
		}
		h.Write([]byte(boundary))
	}
}
