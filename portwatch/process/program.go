package process

import (
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"golang.org/x/sys/unix"
)

// readProgram reads what may change about a process.
func readProgram(root string, pid int, home string) portlist.Program {
	dir, cwd := filepath.Join(root, strconv.Itoa(pid)), ""
	var buf [portlist.MaxDirectory + 1]byte
	if n, err := unix.Readlink(filepath.Join(dir, "cwd"), buf[:]); err == nil && n <= portlist.MaxDirectory {
		cwd = string(buf[:n])
	}
	return portlist.NewProgram(readCommand(filepath.Join(dir, "cmdline")), cwd, home)
}

// readCommand reads no more of a command line than is used.
func readCommand(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, portlist.MaxCommand))
	if err != nil {
		return ""
	}
	words := strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " ")
	return Printable(words, portlist.MaxCommand)
}

// homeOf is the home of a user of this machine; "" for one that has none.
func homeOf(uid uint64) string {
	u, err := user.LookupId(strconv.FormatUint(uid, 10))
	if err != nil || len(u.HomeDir) > portlist.MaxDirectory {
		return ""
	}
	return u.HomeDir
}
