package output

import (
	"fmt"
	"io"
	"strings"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// Released writes for people which forwards have given a host port back.
func Released(w io.Writer, all []status.GivenBack, look Look) error {
	var b strings.Builder
	for _, f := range all {
		whose := ""
		if f.Process != "" {
			whose = ", " + Clean(f.Process)
		}
		b.WriteString(wrapped(fmt.Sprintf("%d/%s of %s%s gives back %s", f.Port, Clean(f.Proto), Clean(f.VM), whose, addresses(f.Host)), "", look.Width))
	}
	b.WriteString(wrapped("it is forwarded again when nothing listens on its port in the VM any more, and something does anew", "", look.Width))
	_, err := io.WriteString(w, b.String())
	return err
}
