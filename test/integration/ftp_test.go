package integration

import (
	"os/exec"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// TestFTPInPassiveModeWorks transfers files as docs/networking.md says: the range of the
// server's data ports is forwarded before any of them listens.
func TestFTPInPassiveModeWorks(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has the module of python3-pyftpdlib
	g := newGuest(t, "dev")
	h := startHostRules(t, g, `
[[ports]]
guest = "7860-7869"
static = true
`)
	dir := t.TempDir()
	_, log := g.run(t, python, "-c", `
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_user("user", "word", sys.argv[1], perm="elradfmwMT")
FTPHandler.passive_ports = range(7860, 7870)
FTPServer(("127.0.0.1", 7859), FTPHandler).serve_forever()
`, dir)
	h.awaitForward(t, "dev", 7859, "open", active)
	eventually(t, "the data ports to be open", func() bool {
		n := 0
		for _, f := range h.vm(t, "dev").Forwards {
			if f.Port >= 7860 && f.State == status.Active {
				n++
			}
		}
		return n == 10
	})
	// After EPSV the client is told a port, after PASV an address too.
	client := exec.Command(python, "-c", `
import ftplib, io, os
for host, family in ("127.0.0.1", "PASV"), ("::1", "EPSV"):
    for n in range(10):
        with ftplib.FTP(timeout=20) as ftp:
            ftp.connect(host, 7859)
            ftp.login("user", "word")
            sent = os.urandom(1000000 + n)
            ftp.storbinary("STOR file", io.BytesIO(sent))
            got = io.BytesIO()
            ftp.retrbinary("RETR file", got.write)
            assert got.getvalue() == sent, (family, n, len(got.getvalue()))
            assert ftp.nlst() == ["file"], (family, n)
`)
	if out, err := client.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\nthe server said:\n%s", err, out, log.String())
	}
}
