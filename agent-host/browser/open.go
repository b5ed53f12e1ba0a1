package browser

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"time"
)

// Display says why this process can open no browser; nil if it can.
func Display() error {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return errors.New("this agent has no display: DISPLAY and WAYLAND_DISPLAY are not set")
	}
	return nil
}

// startedWithin is how soon a desktop that cannot open a URL says so.
const startedWithin = 3 * time.Second

// Start opens a URL as Open does, and does not wait until a browser that is started for it ends: the error is what
// is known by then. done is called when nothing of it runs any more.
func Start(ctx context.Context, url string, done func()) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	ended := make(chan error, 1)
	go func() {
		defer done()
		defer cancel()
		ended <- exec.CommandContext(ctx, "xdg-open", url).Run() // without pipes, which a browser would keep open
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(startedWithin):
		return nil
	}
}

// Open opens a URL, as the user's desktop has it opened. What is said meanwhile goes to a writer.
func Open(ctx context.Context, url string, said io.Writer) error {
	c := exec.CommandContext(ctx, "xdg-open", url)
	c.Stdout, c.Stderr = said, said
	return c.Run()
}
