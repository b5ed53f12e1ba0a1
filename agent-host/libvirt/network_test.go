package libvirt

import "testing"

func TestANetworkThatSetupMadeIsRead(t *testing.T) {
	var n Network
	if err := n.read(`<network>
  <name>rum-hostonly</name>
  <metadata><rum:setup xmlns:rum='https://github.com/rum-vm/rum-agent/setup/1'/></metadata>
  <dns enable='no'/>
  <ip address='192.168.50.1' prefix='24'>
    <dhcp>
      <range start='192.168.50.100' end='192.168.50.254'/>
    </dhcp>
  </ip>
</network>`); err != nil {
		t.Fatal(err)
	}
	if !n.Ours || n.Forward != "" || n.Subnet.String() != "192.168.50.1/24" || n.DHCP != "192.168.50.100-192.168.50.254" {
		t.Errorf("%+v", n)
	}
}

func TestPrefixOfReadsNetmaskAndPrefix(t *testing.T) {
	for want, in := range map[string]ipDef{
		"192.168.122.1/24": {Address: "192.168.122.1", Netmask: "255.255.255.0"},
		"10.1.2.3/9":       {Address: "10.1.2.3", Netmask: "255.128.0.0"},
		"10.1.2.3/20":      {Address: "10.1.2.3", Prefix: "20"},
		"":                 {Address: "fd00::1", Prefix: "64"},
	} {
		got, ok := prefixOf(in)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%+v: got %v, want %q", in, got, want)
		}
	}
}
