package browser

import (
	"context"
	"html"
	"os/exec"
	"strings"
)

// Notify asks the user on the desktop whether something is to be opened, until ctx ends. It is not decided where he
// says nothing, and where there is no desktop, or one whose notify-send (libnotify before 0.8) cannot ask.
func Notify(ctx context.Context, title, text string) (accept, decided bool) {
	// Desktops take the text for markup.
	c := exec.CommandContext(ctx, "notify-send", "--app-name=rum agents", "--action=open=Open it", "--action=refuse=Refuse", "--", title, html.EscapeString(text))
	said, err := c.Output()
	if err != nil {
		return false, false
	}
	switch strings.TrimSpace(string(said)) {
	case "open":
		return true, true
	case "refuse":
		return false, true
	}
	return false, false
}
