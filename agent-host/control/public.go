package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"regexp"
	"strconv"
)

// ListenFor opens a socket at path that the members of a group may connect to besides its owner;
// with an empty name, those of this process's group. Else it is as [Listen].
func ListenFor(ctx context.Context, path, group string) (net.Listener, error) {
	gid := os.Getgid()
	if group != "" {
		g, err := user.LookupGroup(group)
		if _, unknown := errors.AsType[user.UnknownGroupError](err); unknown {
			g, err = user.LookupGroupId(group)
		}
		if err != nil {
			return nil, fmt.Errorf("there is no group %s for the status socket", group)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, fmt.Errorf("group %s of the status socket: %w", group, err)
		}
	}
	l, err := Listen(ctx, path)
	if err != nil {
		return nil, err
	}
	// Until it is the group's, it is its owner's alone.
	if err = os.Chown(path, -1, gid); err == nil {
		err = os.Chmod(path, 0o660)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("give the status socket to its group: %w", err)
	}
	return l, nil
}

// ServePublic is Serve for others than the agent's user: they see what there is and what
// happens, and have nothing done. Of the directories of all paths it says … alone.
func (s *Server) ServePublic(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	s.handleReads(mux)
	for _, path := range []string{waitPath, connectPath, forwardsPath, releasePath, reloadPath, linkPath, requestsPath, logPath, upgradePath} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "this socket is there for status alone", http.StatusForbidden)
		})
	}
	return s.serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(&withoutPaths{w}, r)
	}))
}

// directories are those of absolute paths in a text of JSON.
var directories = regexp.MustCompile(`(^|[\s"'=(,:])/(?:[^/\s"',:;()]+/)+`)

// withoutPaths has … in the place of directories, so that nobody takes a path, or a command with it, for whole. Each write has whole strings.
type withoutPaths struct{ http.ResponseWriter }

func (w *withoutPaths) Write(b []byte) (int, error) {
	_, err := w.ResponseWriter.Write(directories.ReplaceAll(b, []byte("$1…/")))
	return len(b), err
}

// Unwrap is for [http.ResponseController].
func (w *withoutPaths) Unwrap() http.ResponseWriter { return w.ResponseWriter }
