package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// initWords replaces a function of cobra's script that needs the package bash-completion: without it words are those
// that bash has.
const initWords = `
__rum-host-agent_init_completion()
{
    COMPREPLY=()
    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref "$@" cur prev words cword
        return
    fi
    words=("${COMP_WORDS[@]}")
    cword=$COMP_CWORD
    cur=${words[cword]}
    prev=${words[cword-1]}
}
`

// mendCompletion makes of cobra's own completion command one that fails where it is misused, and whose script for bash
// works everywhere.
func mendCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	c, _, err := root.Find([]string{"completion"})
	if err != nil {
		return
	}
	c.Args = noSubcommand
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	for _, sub := range c.Commands() {
		sub.Args = atMost(0)
		if sub.Name() != "bash" {
			continue
		}
		script := sub.RunE
		sub.RunE = func(c *cobra.Command, args []string) error {
			if err := script(c, args); err != nil {
				return err
			}
			_, err := fmt.Fprint(c.OutOrStdout(), initWords)
			return err
		}
	}
}
