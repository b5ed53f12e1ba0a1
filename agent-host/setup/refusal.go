package setup

import (
	"fmt"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
)

// explainRefusal names the device for which libvirt did not store the planned definition. Its own words are about buses and
// indexes, and not about a device.
func explainRefusal(c *libvirt.Conn, p *Plan, refusal error) error {
	plain := fmt.Errorf("storing the definition of domain %s: %w", p.Domain, refusal)
	if wouldRefuse(c, p.before) {
		return plain // whatever it is, it was there before
	}
	for i, d := range p.attach {
		text, err := insertDevices(p.before, p.attach[:i+1])
		if err == nil && wouldRefuse(c, text) {
			return libvirt.Advise(fmt.Errorf("%s: %w to %s: %w", d.what, ErrRefused, p.Domain, refusal),
				fmt.Sprintf("most often the machine has no PCI slot left: remove a device that it does not need with: virsh edit %s; "+
					"nothing was changed", p.Domain))
		}
	}
	return plain
}

// wouldRefuse asks libvirt to translate a definition, for which it places all devices and stores nothing.
func wouldRefuse(c *libvirt.Conn, text string) bool {
	_, err := c.Client().ConnectDomainXMLToNative("qemu-argv", text, 0)
	return err != nil
}
