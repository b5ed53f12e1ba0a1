// Package proxy gives commands of this host a port of a VM that no listener here stands for:
// joined to standard input and output, or handed over as a descriptor, as ssh takes it.
//
// The connection is the agent's, and what becomes of it there is the business of control and
// what that is given. Flags are the commands' own.
package proxy
