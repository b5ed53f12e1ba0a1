// Package logbuf is a log that tests and benches read while programs write it.
package logbuf

import (
	"bytes"
	"sync"
)

// Buffer keeps what is written to it. The zero value is empty, and several goroutines
// may use it.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write adds p; it never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String is what has been written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
