package control

import (
	"bufio"
	"cmp"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Other is another agent on this host.
type Other struct {
	Socket string
	UID    int
	User   string // its name, or its number
}

// Others are the agents beside the one at a socket whose own have the usual name, wherever that
// is, or are named on a command line that can be seen. Whether one may be asked is another matter: the kernel
// tells every user which sockets are listened on.
func Others(socket string) (all []Other) {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil
	}
	defer f.Close()
	if abs, err := filepath.Abs(socket); err == nil {
		socket = abs
	}
	named := given()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		path, listens := listening(lines.Text())
		if !listens || path == socket || filepath.Base(path) != socketName && !named[path] {
			continue
		}
		if o, ok := OwnerOf(path); ok {
			all = append(all, o)
		}
	}
	return all
}

// given are the sockets that agents which run were given.
func given() map[string]bool {
	sockets := make(map[string]bool)
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // fails for a malformed pattern alone
	for _, file := range files {
		text, _ := os.ReadFile(file) // nothing where it may not be seen
		args := strings.Split(string(text), "\x00")
		if filepath.Base(args[0]) != "rum-host-agent" || !slices.Contains(args, "run") {
			continue
		}
		for i, arg := range args[1:] {
			path, ok := strings.CutPrefix(arg, "--socket")
			switch {
			case !ok:
			case path == "":
				sockets[args[min(i+2, len(args)-1)]] = true
			default:
				sockets[strings.TrimPrefix(path, "=")] = true
			}
		}
	}
	return sockets
}

// OwnerOf tells whose the agent at a socket is, if that can be seen.
func OwnerOf(path string) (o Other, ok bool) {
	o = Other{Socket: path, UID: -1}
	if info, err := os.Stat(path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			o.UID = int(st.Uid)
		}
	} else if uid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
		o.UID = uid // /run/user/UID, where others may not look
	}
	if o.UID < 0 {
		return o, false
	}
	o.User = strconv.Itoa(o.UID)
	if u, err := user.LookupId(o.User); err == nil {
		o.User = cmp.Or(u.Username, o.User)
	}
	return o, true
}

// acceptsConnections is __SO_ACCEPTCON of linux/net.h.
const acceptsConnections = 1 << 16

// listening reads a line of /proc/net/unix, whose columns are Num, RefCount, Protocol, Flags,
// Type, St, Inode and Path (unix_seq_show in net/unix/af_unix.c).
func listening(line string) (path string, listens bool) {
	columns := strings.Fields(line)
	if len(columns) < 8 || !strings.HasPrefix(columns[7], "/") {
		return "", false
	}
	flags, err := strconv.ParseUint(columns[3], 16, 32)
	return strings.Join(columns[7:], " "), err == nil && flags&acceptsConnections != 0
}
