package reserve_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/tunnel/reserve"
)

// TestWithoutDescriptorsConnectionsAreTurnedAway uses up every descriptor.
func TestWithoutDescriptorsConnectionsAreTurnedAway(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	a := reserve.NewListener(l)
	defer a.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	var all syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &all); err != nil {
		t.Fatal(err)
	}
	low := all
	low.Cur = 64
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var taken []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		taken = append(taken, f)
	}
	conn, acceptErr := a.Accept()
	for _, f := range taken {
		_ = f.Close()
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &all); err != nil {
		t.Fatal(err)
	}
	if conn != nil || !errors.Is(acceptErr, syscall.EMFILE) {
		t.Fatalf("accepted %v, %v without a descriptor", conn, acceptErr)
	}
	_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the client was left waiting: %v", err)
	}

	// With descriptors again it accepts as ever.
	again, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if conn, err = a.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
