package portwatch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Headers as the kernel writes them.
const (
	header4 = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n"
	header6 = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	udp4    = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops            \n"
	udp6    = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
)

// fakeProc is a procfs with no sockets and no processes.
func fakeProc(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, "net/tcp", header4)
	write(t, root, "net/tcp6", header6)
	write(t, root, "net/udp", udp4)
	write(t, root, "net/udp6", udp6)
	return root
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// addProcess gives a fake procfs a process that holds some sockets.
func addProcess(t *testing.T, root string, pid, ppid int, comm string, inodes ...int) {
	t.Helper()
	dir := strconv.Itoa(pid)
	write(t, root, dir+"/stat", fmt.Sprintf(
		"%d (%s) S %d 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 50 1000 10 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
		pid, comm, ppid))
	write(t, root, dir+"/fd/0", "") // a descriptor that is no link at all
	symlink(t, "/dev/null", filepath.Join(root, dir, "fd/1"))
	symlink(t, "anon_inode:[eventpoll]", filepath.Join(root, dir, "fd/2"))
	for i, inode := range inodes {
		symlink(t, fmt.Sprintf("socket:[%d]", inode), filepath.Join(root, dir, "fd", strconv.Itoa(3+i)))
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// listening returns a row of net/tcp for 127.0.0.1:port.
func listening(port, inode int) string {
	return fmt.Sprintf("   0: 0100007F:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 %d 1 0000000000000000 100 0 0 10 0\n", port, inode)
}
