// Package explain makes of what an agent knows about a port the steps from the program in the
// guest to the client on the host, with the first one that fails and what to do about it.
//
// It works on what a status says, and in the words of that; where states and reasons come from
// is not its business. It imports nothing that reaches outside.
package explain
