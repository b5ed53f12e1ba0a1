package main

import (
	_ "embed"
	"fmt"
	"io"
)

//go:embed profile.sh
var profileSnippet string

// profile prints what a user's shell may be told to evaluate.
func profile(args []string, stdout io.Writer) error {
	switch {
	case len(args) == 0:
		_, err := io.WriteString(stdout, profileSnippet)
		return err
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h"):
		_, err := fmt.Fprint(stdout, `Print a snippet for a shell's profile. It shows once in each interactive shell what
became of the ports here on the host:

  echo 'eval "$(rum-guest-agent profile)"' >>~/.profile
`)
		return err
	}
	return misuse(fmt.Errorf("profile: unexpected argument %q", args[0]))
}
