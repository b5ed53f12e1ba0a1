package libvirt

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheHostOnlyNetworkLeadsNowhereAndServesNoDNS(t *testing.T) {
	const want = `<network>
  <name>rum-hostonly</name>
  <metadata><rum:setup xmlns:rum='https://github.com/rum-vm/rum-agent/setup/1'/></metadata>
  <dns enable='no'/>
  <ip address='192.168.50.1' prefix='24'>
    <dhcp>
      <range start='192.168.50.100' end='192.168.50.254'/>
    </dhcp>
  </ip>
</network>`
	got, err := hostOnlyXML("rum-hostonly", netip.MustParsePrefix("192.168.50.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var n Network
	if err := n.read(got); err != nil {
		t.Fatal(err)
	}
	if !n.Ours || n.Forward != "" || n.Subnet.String() != "192.168.50.1/24" || n.DHCP != "192.168.50.100-192.168.50.254" {
		t.Errorf("read back: %+v", n)
	}
}

func TestDHCPRangeFitsTheSubnet(t *testing.T) {
	for subnet, want := range map[string]string{
		"192.168.50.0/24": "192.168.50.100-192.168.50.254",
		"10.20.0.0/16":    "10.20.100.0-10.20.255.254",
		"10.0.0.16/28":    "10.0.0.22-10.0.0.30",
		"10.0.0.0/8":      "10.100.0.0-10.255.255.254",
		"10.0.0.0/29":     "10.0.0.3-10.0.0.6",
		"10.0.0.0/30":     "",
		"10.0.0.0/7":      "",
		"fd00::/64":       "",
	} {
		text, err := hostOnlyXML("n", netip.MustParsePrefix(subnet))
		if want == "" {
			if err == nil {
				t.Errorf("%s was taken", subnet)
			}
			continue
		}
		var n Network
		if err := n.read(text); err != nil || n.DHCP != want {
			t.Errorf("%s: %q, %v; want %q", subnet, n.DHCP, err, want)
		}
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

func TestMACAddressIsStableAndUnique(t *testing.T) {
	const uuid = "5d1f6b0e-2a58-4c3b-9a39-6b4f0e9d7c11"
	first := deviceMAC(uuid, "hostonly", nil)
	if again := deviceMAC(uuid, "hostonly", map[string]bool{}); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	if other := deviceMAC(uuid, "nat", nil); other == first {
		t.Error("two NICs of one domain have one address")
	}
	if next := deviceMAC(uuid, "hostonly", map[string]bool{first: true}); next == first {
		t.Error("an address in use was given")
	}
}
