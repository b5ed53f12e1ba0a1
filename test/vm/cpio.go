package vm

import (
	"bufio"
	"fmt"
	"io"
)

// cpioWriter writes the "newc" cpio format of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst: everything is
// owned by root and has no time stamp, so equal input gives equal bytes.
type cpioWriter struct {
	w   *bufio.Writer
	off int64
	ino int
	err error
}

// File types of a cpio mode, from stat(2).
const (
	modeDir     = 0o040000
	modeFile    = 0o100000
	modeSymlink = 0o120000
)

func newCPIOWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: bufio.NewWriter(w)}
}

// add appends one entry. Directories must come before what is in them.
func (c *cpioWriter) add(name string, mode uint32, body []byte) {
	c.ino++
	c.printf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.ino, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name)+1, 0)
	c.printf("%s\x00", name)
	c.pad(4)
	c.write(body)
	c.pad(4)
}

// close writes the trailer and reports the first error of the whole archive.
func (c *cpioWriter) close() error {
	c.ino = -1
	c.add("TRAILER!!!", 0, nil)
	c.pad(512)
	if c.err != nil {
		return c.err
	}
	return c.w.Flush()
}

func (c *cpioWriter) printf(format string, args ...any) {
	c.write(fmt.Appendf(nil, format, args...))
}

func (c *cpioWriter) write(b []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(b)
	c.off += int64(n)
	c.err = err
}

func (c *cpioWriter) pad(to int64) {
	if rest := c.off % to; rest != 0 {
		c.write(make([]byte, to-rest))
	}
}
