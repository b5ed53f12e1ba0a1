package libvirt

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rum-vm/rum-agent/test/domains"
)

func TestEndpointAndNICsAreReadFromDefinitions(t *testing.T) {
	type want struct {
		endpoint, endpointWithoutVsock string
		nics                           []NIC
		ports                          []string
	}
	texts := domains.All(t)
	for name, want := range map[string]want{
		"documentation.xml": {nics: []NIC{{Network: "default"}}},
		"virt-install.xml":  {endpoint: "vsock:3", nics: []NIC{{"52:54:00:8a:31:5e", "default"}}},
		"virt-manager.xml": {
			endpoint:             "serial:/run/libvirt/qemu/channel/7-fedora-workstation/rum.agent.0",
			endpointWithoutVsock: "serial:/run/libvirt/qemu/channel/7-fedora-workstation/rum.agent.0",
			nics:                 []NIC{{"52:54:00:e3:9c:01", "default"}, {"52:54:00:e3:9c:02", "rum-hostonly"}},
		},
		"vagrant.xml": {nics: []NIC{{"52:54:00:4d:22:07", "vagrant-libvirt"}, {"52:54:00:aa:11:08", "web0"}}},
		"terraform.xml": {nics: []NIC{{MAC: "52:54:00:31:77:aa"}}, ports: []string{
			"tcp 127.0.0.1:2022 -> guest port 22 (passt)", "tcp 127.0.0.1:8080-8089 (passt)", "udp every port (passt)",
			"tcp 127.0.0.1:2222 -> guest port 22 (hostfwd)", "udp 5353 -> guest port 53 (hostfwd)",
		}},
		"one-line.xml": {},
		"future.xml":   {endpoint: "vsock:7", nics: []NIC{{"52:54:00:11:22:33", "rum-hostonly"}}},
	} {
		t.Run(name, func(t *testing.T) {
			def, err := ParseDefinition(texts[name])
			if err != nil {
				t.Fatal(err)
			}
			endpoint, problem := def.endpoint(true)
			if endpoint != want.endpoint || (endpoint == "") != (problem != "") {
				t.Errorf("endpoint %q (%s), want %q", endpoint, problem, want.endpoint)
			}
			endpoint, problem = def.endpoint(false)
			if endpoint != want.endpointWithoutVsock || (endpoint == "") != (problem != "") {
				t.Errorf("without vsock: endpoint %q (%s), want %q", endpoint, problem, want.endpointWithoutVsock)
			}
			if diff := cmp.Diff(want.nics, def.NICs()); diff != "" {
				t.Error(diff)
			}
			var ports []string
			for _, p := range def.HostPorts() {
				ports = append(ports, p.String())
			}
			if diff := cmp.Diff(want.ports, ports); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOnlyAGuestsCIDIsOne(t *testing.T) {
	for s, want := range map[string]uint32{
		"3": 3, "4294967294": 4294967294, "": 0, "2": 0, "1": 0, "0": 0, "4294967295": 0, "4294967296": 0, "-3": 0, "three": 0,
	} {
		if got := parseCID(s); got != want {
			t.Errorf("CID %q: got %d, want %d", s, got, want)
		}
	}
}

func TestAChannelThatQEMUConnectsOutIsNoEndpoint(t *testing.T) {
	def, err := ParseDefinition(`<domain type='kvm'><devices><channel type='unix'>
		<source mode='connect' path='/run/other'/><target type='virtio' name='rum.agent.0'/></channel></devices></domain>`)
	if err != nil || def.AgentSocket() != "" {
		t.Errorf("got %q, %v", def.AgentSocket(), err)
	}
}
