package cloudinit

import (
	"net"

	"go.yaml.in/yaml/v3"
)

// quoted is a YAML string in double quotes: cloud-init reads YAML 1.1, where 52:54:00:12:34:56 without quotes is a
// number in base 60, and a host name "1e3" another.
type quoted string

func (q quoted) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: string(q)}, nil
}

type metaData struct {
	InstanceID    quoted   `yaml:"instance-id"`
	LocalHostname quoted   `yaml:"local-hostname"`
	PublicKeys    []quoted `yaml:"public-keys,omitempty"`
}

func (s *Seed) metaData() ([]byte, error) {
	hostname, err := s.hostname()
	if err != nil {
		return nil, err
	}
	doc := metaData{InstanceID: quoted(s.instanceID()), LocalHostname: quoted(hostname)}
	for _, key := range s.AuthorizedKeys {
		doc.PublicKeys = append(doc.PublicKeys, quoted(key))
	}
	return yaml.Marshal(doc)
}

type networkConfig struct {
	Version   int                 `yaml:"version"`
	Ethernets map[string]ethernet `yaml:"ethernets"`
}

type ethernet struct {
	Match struct {
		MAC quoted `yaml:"macaddress"`
	} `yaml:"match"`
	DHCP4          bool           `yaml:"dhcp4"`
	DHCPIdentifier string         `yaml:"dhcp-identifier"`
	Overrides      *dhcpOverrides `yaml:"dhcp4-overrides,omitempty"`
	AcceptRA       *bool          `yaml:"accept-ra,omitempty"`
	Optional       bool           `yaml:"optional,omitempty"`
}

type dhcpOverrides struct {
	UseRoutes bool `yaml:"use-routes"`
	UseDNS    bool `yaml:"use-dns"`
}

// networkConfig is version 2, for every renderer of cloud-init, or nil when no MAC address is known. Only the NAT
// interface gives a default route and name servers, and only it is waited for. The lease is asked for under the MAC
// address: clones of one image share the machine-id that would name them otherwise, and then share an address.
// No interface is renamed.
func (s *Seed) networkConfig() ([]byte, error) {
	doc := networkConfig{Version: 2, Ethernets: make(map[string]ethernet)}
	dhcp := func(mac net.HardwareAddr) ethernet {
		e := ethernet{DHCP4: true, DHCPIdentifier: "mac"}
		e.Match.MAC = quoted(mac.String())
		return e
	}
	if s.NAT != nil {
		doc.Ethernets["nat"] = dhcp(s.NAT)
	}
	if s.HostOnly != nil {
		e := dhcp(s.HostOnly)
		e.Overrides = &dhcpOverrides{UseRoutes: false, UseDNS: false}
		e.AcceptRA = new(bool) // an advertised router would become a default route of IPv6
		e.Optional = true
		doc.Ethernets["hostonly"] = e
	}
	if len(doc.Ethernets) == 0 {
		return nil, nil
	}
	return yaml.Marshal(doc)
}
