package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// None is the URI that stands for "use no libvirt at all"; [Open] refuses it.
const None = "none"

const (
	SystemURI  = "qemu:///system"
	SessionURI = "qemu:///session"
)

// The monolithic daemon's socket (or the proxy's, which takes its place) comes before the QEMU daemon's own.
var socketNames = []string{"libvirt-sock", "virtqemud-sock"}

// DefaultURI is the connection used when none is named: $LIBVIRT_DEFAULT_URI, else the system daemon when its socket can
// be used, else the user's session daemon when that one has a socket, else the system daemon.
func DefaultURI() string {
	if uri := os.Getenv("LIBVIRT_DEFAULT_URI"); uri != "" {
		return uri
	}
	usable := func(dir string) bool {
		for _, name := range socketNames {
			// A connection made to find out would leave an error in the daemon's log.
			if unix.Access(filepath.Join(dir, name), unix.W_OK) == nil {
				return true
			}
		}
		return false
	}
	if !usable(systemDir) && usable(sessionDir()) {
		return SessionURI
	}
	return SystemURI
}

// CheckURI returns the error that [Open] would give for a URI that it cannot serve, whether or not a daemon runs.
func CheckURI(uri string) error {
	_, err := parseURI(uri)
	return err
}

// SameDaemon says whether two URIs are of one of the two daemons, the system's and the user's: where the socket of that is,
// is for the user to say.
func SameDaemon(a, b string) bool { return isSession(a) == isSession(b) }

// DaemonOf is the daemon of a URI, [SystemURI] or [SessionURI]: where its socket is may differ from one time to the next.
func DaemonOf(uri string) string {
	if isSession(cmp.Or(uri, DefaultURI())) {
		return SessionURI
	}
	return SystemURI
}

func isSession(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && u.Path == "/session"
}

// daemon is where a libvirt daemon listens and which driver it is asked for.
type daemon struct {
	driver  string   // as sent in the open call
	sockets []string // in the order to try
}

const systemDir = "/run/libvirt"

// sessionDir is where a user's own daemon listens: libvirt follows the XDG base directories.
func sessionDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "libvirt")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Sprintf("/run/user/%d/libvirt", os.Getuid())
	}
	return filepath.Join(cache, "libvirt")
}

// parseURI reads qemu:///system, qemu:///session, qemu+unix:///system?socket=/path, or the absolute path of a system
// daemon's socket. The empty string is [DefaultURI].
func parseURI(uri string) (daemon, error) {
	if uri == "" {
		uri = DefaultURI()
	}
	if strings.HasPrefix(uri, "/") {
		return daemon{driver: SystemURI, sockets: []string{uri}}, nil
	}
	u, err := url.Parse(uri)
	if err != nil {
		return daemon{}, fmt.Errorf("libvirt URI %q: %w", uri, err)
	}
	if u.Scheme != "qemu" && u.Scheme != "qemu+unix" {
		return daemon{}, Advise(fmt.Errorf("libvirt URI %q: only QEMU on this machine is served", uri),
			"use qemu:///system, qemu:///session or qemu+unix:///system?socket=PATH")
	}
	if u.Host != "" {
		return daemon{}, Advise(fmt.Errorf("libvirt URI %q: %s is another machine, and its guests' vsock exists only there", uri, u.Host),
			"run rum-host-agent on "+u.Host)
	}
	var d daemon
	var dir string
	switch u.Path {
	case "/system":
		d.driver, dir = SystemURI, systemDir
	case "/session":
		d.driver, dir = SessionURI, sessionDir()
	default:
		return daemon{}, fmt.Errorf("libvirt URI %q: the path must be /system or /session", uri)
	}
	if socket := u.Query().Get("socket"); socket != "" {
		d.sockets = []string{socket}
		return d, nil
	}
	for _, name := range socketNames {
		d.sockets = append(d.sockets, filepath.Join(dir, name))
	}
	return d, nil
}

// dial connects to the first socket that answers. Its error is that of the first socket that exists.
func (d daemon) dial(ctx context.Context) (net.Conn, error) {
	var first error
	for _, path := range d.sockets {
		var dialer net.Dialer
		nc, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			return nc, nil
		}
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
	}
	err := fmt.Errorf("%w: %w", ErrUnavailable, first)
	switch {
	case errors.Is(first, fs.ErrPermission):
		return nil, Advise(err, joinGroup)
	case errors.Is(first, fs.ErrNotExist) && d.driver == SessionURI:
		return nil, Advise(err, "start the session daemon with: virsh -c qemu:///session version")
	default:
		return nil, Advise(err, "start libvirt with: sudo systemctl start libvirtd.socket")
	}
}
