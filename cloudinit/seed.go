package cloudinit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rum-vm/rum-agent/tunnel/keyfile"
)

// Seed is what one guest gets. Name, Key and at least one agent are required.
type Seed struct {
	// Name is the guest's name on the host: the libvirt domain's, say.
	Name string
	// UUID is the domain's, empty if it has none yet. With Name it makes the instance-id.
	UUID string
	// Hostname is the guest's own; empty for Name with what a host name cannot hold replaced by hyphens.
	Hostname string
	// AuthorizedKeys are lines of an authorized_keys file, for the image's default user.
	AuthorizedKeys []string
	// UserData is the user's document, passed on unchanged; nil for none. See CheckUserData.
	UserData []byte
	// NAT and HostOnly are the MAC addresses of the two interfaces; nil for an interface the guest does not
	// have. With neither, the guest's image decides about its network.
	NAT, HostOnly net.HardwareAddr
	// Key is the secret that guest and host share.
	Key keyfile.Key
	// Agents are guest agents, one per architecture.
	Agents []Agent
}

// hostLabel is one label of a host name, by RFC 1123 section 2.1.
var hostLabel = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)

// notHostChar is a run of what a host name cannot hold.
var notHostChar = regexp.MustCompile(`[^a-z0-9]+`)

// validate says what is wrong with a seed before anything is built from it.
func (s *Seed) validate() error {
	if s.Name == "" {
		return errors.New("seed: the guest has no name")
	}
	if s.Key == (keyfile.Key{}) {
		return fmt.Errorf("seed for %q: no key", s.Name)
	}
	if len(s.Agents) == 0 {
		return fmt.Errorf("seed for %q: no guest agent", s.Name)
	}
	arches := make(map[string]bool)
	for _, a := range s.Agents {
		if arches[a.Arch] {
			return fmt.Errorf("seed for %q: two agents for %s", s.Name, a.Arch)
		}
		arches[a.Arch] = true
	}
	if _, err := s.hostname(); err != nil {
		return err
	}
	for _, line := range s.AuthorizedKeys {
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil {
			return fmt.Errorf("seed for %q: not a line of authorized_keys: %.40q", s.Name, line)
		}
	}
	for _, mac := range []net.HardwareAddr{s.NAT, s.HostOnly} {
		// A set lowest bit of the first octet is a group address (IEEE 802), which no interface has.
		if mac != nil && (len(mac) != 6 || mac[0]&1 != 0) {
			return fmt.Errorf("seed for %q: %v is not the MAC address of an interface", s.Name, mac)
		}
	}
	if s.NAT != nil && s.NAT.String() == s.HostOnly.String() {
		return fmt.Errorf("seed for %q: both interfaces have the MAC address %v", s.Name, s.NAT)
	}
	if s.UserData != nil {
		if _, err := CheckUserData(s.UserData); err != nil {
			return fmt.Errorf("user-data: %w", err)
		}
	}
	return nil
}

func (s *Seed) hostname() (string, error) {
	if s.Hostname == "" {
		name := strings.Trim(notHostChar.ReplaceAllString(strings.ToLower(s.Name), "-"), "-")
		name = strings.TrimRight(name[:min(len(name), 63)], "-")
		if name == "" {
			return "", fmt.Errorf("seed for %q: no host name can be made of that name: give one", s.Name)
		}
		return name, nil
	}
	// 253: the longest name that DNS can carry (RFC 1035 section 2.3.4, less two length octets).
	if len(s.Hostname) > 253 {
		return "", fmt.Errorf("seed for %q: the host name is longer than 253 characters", s.Name)
	}
	for label := range strings.SplitSeq(s.Hostname, ".") {
		if !hostLabel.MatchString(label) {
			return "", fmt.Errorf("seed for %q: %q is not a host name: letters, digits and hyphens, at most 63 between dots",
				s.Name, s.Hostname)
		}
	}
	return s.Hostname, nil
}

// instanceID stays the same for a guest, so that cloud-init does not take a new seed for a new machine and run the
// user's per-instance work again.
func (s *Seed) instanceID() string {
	sum := sha256.Sum256([]byte(s.Name + "\x00" + strings.ToLower(s.UUID)))
	return "iid-rum-" + hex.EncodeToString(sum[:8])
}

// ParseAuthorizedKeys returns the keys of an authorized_keys or .pub file, one a line, without comments. An error
// names the line; a private key is refused as such.
func ParseAuthorizedKeys(data []byte) ([]string, error) {
	var keys []string
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.Contains(line, "PRIVATE KEY") {
			return nil, fmt.Errorf("line %d: this is a private key: give its .pub file", i+1)
		}
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil {
			return nil, fmt.Errorf("line %d: not a public key as in authorized_keys", i+1)
		}
		keys = append(keys, line)
	}
	if len(keys) == 0 {
		return nil, errors.New("no public key in it")
	}
	return keys, nil
}
