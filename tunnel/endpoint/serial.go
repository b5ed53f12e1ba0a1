package endpoint

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// OpenSerial opens a virtio-serial port in the guest. Reads on it return io.EOF
// while no host is connected.
func OpenSerial(path string) (net.Conn, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is not a serial port that can be waited for: %w", path, err)
	}
	return &Pipe{r: f, w: f, name: pipeAddr(path)}, nil
}
