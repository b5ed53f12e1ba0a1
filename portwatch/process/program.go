package process

import (
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of a Program in bytes. A longer command line is cut. A directory is told whole
// or not at all, because a part of it is another one.
const (
	MaxCommand   = 512
	MaxDirectory = 512
)

// Program is what rules may ask about a process besides its name; a field that is not
// known is empty. It is for matching and nothing else: command lines may hold
// passwords, so it is written into no JSON, and printed as its type only.
type Program struct {
	// Command is the command line with blanks between its arguments.
	Command string
	// Dir is the working directory, and Home that of the user whose process it is.
	Dir, Home string
}

// String hides what is in it.
func (Program) String() string { return "portwatch.Program" }

// GoString hides what is in it.
func (p Program) GoString() string { return p.String() }

// readProgram reads what may change about a process.
func readProgram(root string, pid int) (p Program) {
	dir := filepath.Join(root, strconv.Itoa(pid))
	p.Command = readCommand(filepath.Join(dir, "cmdline"))
	var buf [MaxDirectory + 1]byte
	if n, err := unix.Readlink(filepath.Join(dir, "cwd"), buf[:]); err == nil && n <= MaxDirectory {
		p.Dir = string(buf[:n])
	}
	return p
}

// readCommand reads no more of a command line than is used.
func readCommand(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxCommand))
	if err != nil {
		return ""
	}
	words := strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " ")
	return Printable(words, MaxCommand)
}

// homeOf is the home of a user of this machine; "" for one that has none.
func homeOf(uid uint64) string {
	u, err := user.LookupId(strconv.FormatUint(uid, 10))
	if err != nil || len(u.HomeDir) > MaxDirectory {
		return ""
	}
	return u.HomeDir
}
