package portwatch

import (
	"fmt"
	"net"

	"github.com/rum-vm/rum-agent/portwatch/process"
)

// interfaces remembers the names of the interfaces that sockets are bound to.
type interfaces map[uint32]string

// names returns the names by index. An interface that is gone has its number for
// a name: nothing can arrive by it.
func (i *interfaces) names(sockets []socket) map[uint32]string {
	known := make(interfaces)
	for _, s := range sockets {
		if s.device == 0 || known[s.device] != "" {
			continue
		}
		name := (*i)[s.device]
		if name == "" {
			name = fmt.Sprintf("#%d", s.device)
			if found, err := net.InterfaceByIndex(int(s.device)); err == nil {
				name = process.Printable(found.Name, process.MaxName)
			}
		}
		known[s.device] = name
	}
	*i = known
	return known
}
