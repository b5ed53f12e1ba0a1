package browser

import (
	"context"
	"io"
	"os/exec"
)

// Open opens a URL, as the user's desktop has it opened. What is said meanwhile goes to a writer.
func Open(ctx context.Context, url string, said io.Writer) error {
	c := exec.CommandContext(ctx, "xdg-open", url)
	c.Stdout, c.Stderr = said, said
	return c.Run()
}
