package setup

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"
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
		var def libvirtxml.Network
		if err := def.Unmarshal(text); err != nil {
			t.Fatal(err)
		}
		if r := def.IPs[0].DHCP.Ranges[0]; r.Start+"-"+r.End != want {
			t.Errorf("%s: %+v; want %q", subnet, r, want)
		}
	}
}
