package relay

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// pipeSize is asked of the kernel for each pipe; pipe(7) allows 1 MiB without
// privilege (fs.pipe-max-size).
const pipeSize = 256 << 10

// pipes holds empty pipes. What the garbage collector drops from the pool is
// closed by its cleanup.
var pipes sync.Pool

type pipe struct {
	r, w    int
	cleanup runtime.Cleanup
}

func newPipe() (*pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	// Refused beyond fs.pipe-user-pages-soft; the default size works too.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	p := &pipe{r: fds[0], w: fds[1]}
	p.cleanup = runtime.AddCleanup(p, closePipe, fds)
	return p, nil
}

func (p *pipe) close() {
	p.cleanup.Stop()
	closePipe([2]int{p.r, p.w})
}

func closePipe(fds [2]int) {
	_ = unix.Close(fds[0])
	_ = unix.Close(fds[1])
}

// takePipe makes sure that there is an empty pipe; without descriptors for one,
// bytes are copied.
func (l *Loop) takePipe() bool {
	if l.pipe != nil {
		return true
	}
	if p, ok := pipes.Get().(*pipe); ok {
		l.pipe = p
		return true
	}
	p, err := newPipe()
	if err != nil {
		return false
	}
	l.pipe = p
	return true
}

// splice moves bytes between a descriptor and a pipe without copying them.
func splice(from, to, n int) (int, error) {
	return ignoringEINTR(func() (int, error) {
		n, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
}
