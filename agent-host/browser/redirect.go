package browser

import (
	"errors"
	"fmt"
	"html"
	"os"
	"path/filepath"
)

// redirectName is the file with the last link.
const redirectName = "rum-dashboard.html"

const redirect = `<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=%[1]s">
<title>rum agents</title>
<p><a href="%[1]s">The page of the agent</a>. This link holds once, and for a minute.
`

// WriteRedirect writes a file that leads a browser to a URL with a secret in it, and returns its path. Only this user
// can read it: what a program is started with, as a browser with a URL, every user can.
func WriteRedirect(url string) (path string, err error) {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(dir) {
		return "", errors.New("XDG_RUNTIME_DIR is not set, and there is no other place that only this user can read")
	}
	f, err := os.CreateTemp(dir, redirectName) // with mode 0600
	if err != nil {
		return "", fmt.Errorf("write a link for the browser: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = fmt.Fprintf(f, redirect, html.EscapeString(url))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("write a link for the browser: %w", err)
	}
	path = filepath.Join(dir, redirectName)
	if err := os.Rename(f.Name(), path); err != nil {
		return "", fmt.Errorf("write a link for the browser: %w", err)
	}
	return path, nil
}
