package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

func TestAPortThatIsTakenIsNamedWithItsHolder(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		err = checkPort(port)
		if holder := fmt.Sprintf("[%d]", os.Getpid()); err == nil || !strings.Contains(err.Error(), holder) {
			t.Errorf("%s: %v does not name %s", l.Addr(), err, holder)
		}
		_ = l.Close()
		if err := checkPort(port); err != nil {
			t.Errorf("a free port: %v", err)
		}
	}
}
