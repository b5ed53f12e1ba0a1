package ask

import (
	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/shellword"
)

// Command is a command of this program as a shell takes it, which asks the agent at that control socket: words that
// begin with the name of a subcommand.
func Command(socket string, words ...string) string {
	return shellword.Join(append([]string{"rum-host-agent"}, words...)...) + SocketFlag(socket)
}

// SocketFlag is what has a command ask the agent at that control socket, behind a space; empty for the usual one.
func SocketFlag(socket string) string {
	if socket == control.DefaultSocket() {
		return ""
	}
	return " --socket " + shellword.Quote(socket)
}
